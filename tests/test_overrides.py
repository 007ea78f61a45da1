"""Options of ``python -m monai.bundle run``: what is refused in one line, and names that stay text."""

import json
import warnings

import pytest
from fire.parser import DefaultParseValue
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from workflow_fixtures import INFERENCE, TRAIN

from bundle.api import read_configuration
from bundle.system import CONFIGS, DataWarning, overrides
from bundle.system.configurations import find_configurations, load_configurations
from bundle.system.kinds import without_effect


def check(arguments):
    overrides.check_overrides(overrides.overrides(arguments))


def test_options_are_read_from_both_ways_of_writing():
    assert overrides.overrides(["training", "--a", "1", "2", "--b=x=y", "--c"]) == {
        "a": ["1", "2"],
        "b": ["x=y"],
        "c": [],
    }


def test_an_option_given_twice_is_refused():
    with pytest.raises(ValueError, match="--pair_limits is given twice; give it once"):
        overrides.overrides(["run", "--pair-limits", "1", "--pair_limits=2"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--tracking", "mlflow", "--experiment_name", "tiny"],
        ["--steps", "3", "--pair_limits::test", "4"],
        ["--pair_limits#test=4", "--+imports", "[]", "--weights=$None"],
        ["--steps", "@inner_steps", "--inner_lr", "1e-3", "--pixdim", "1"],
        ["--seed", "$1 + 1", "--pictures", "False"],
        ["--regularisation_weight", "0", "--held_maps", "[1, 2]", "--control_points", "$None"],
    ],
)
def test_known_options_pass(arguments):
    check(["--config_file", f"['{TRAIN}', '{INFERENCE}']", *arguments])


@pytest.mark.parametrize(
    ("files", "arguments", "unused"),
    [
        ("train.yaml", ["--spatial_size", "[64, 64]", "--window_mm", "9"], "--spatial_size"),
        ("train.yaml,quick.yaml", ["--window_mm", "9", "--pixdim", "2"], "--window_mm"),
        ("train.yaml,mr_trus.yaml", ["--weights", "a.pt", "--window_mm", "9"], "--weights"),
        ("inference.yaml,voxelmorph.yaml", ["--channels", "16", "--steps=3"], "--channels"),
        ("inference.yaml,2d.yaml", ["--intensity_percentiles", "[1, 99]"], "--intensity_percentiles"),
        ("inference.yaml,classical.yaml", ["--inner_lr", "0.1", "--centred_maps", "[0]"], "--inner_lr"),
        ("inference.yaml,command.yaml", ["--at_once", "2", "--mirror_axis", "0"], "--at_once, --mirror_axis"),
    ],
)
def test_options_that_nothing_uses_are_told(files, arguments, unused):
    """What used them was replaced by an overlay, and they did nothing, in silence."""
    with pytest.warns(DataWarning) as told:
        check(["--config_file", files, *arguments])
    (warning,) = told
    assert str(warning.message) == f"{unused}: no effect, since nothing in these configurations uses it"


def test_settings_that_nothing_uses_are_told_in_python_too():
    with pytest.warns(DataWarning, match="^channels: no effect, since nothing in these configurations uses it$"):
        read_configuration(["inference.yaml", "voxelmorph.yaml"], {"channels": 16, "steps": 3})


@pytest.mark.parametrize("base", ["train", "inference", "maps", "inference_2d", "fine_tune_2d"])
def test_nothing_that_a_configuration_has_is_without_effect(base):
    only_for_overlays = {"bundle_root", "spatial_size"}
    assert without_effect(load_configurations(base), {}) <= only_for_overlays
    assert without_effect(load_configurations(base), {"mine": "$@bundle_root", "steps": "@spatial_size"}) == set()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--step", "3"],
            r"unknown option --step; did you mean --steps\?; known options are --bundle_root, .*--steps\b",
        ),
        (["--experiment_name", "tiny"], "unknown option --experiment_name;"),
        (
            ["--foo", "--pairlimits::test", "4"],
            r"unknown option --foo, --pairlimits::test; did you mean --pair_limits\?;",
        ),
        (["--steps", "five"], "--steps is 'five'; expected a whole number, such as 5"),
        (["--steps", "1.5"], "--steps is '1.5'; expected a whole number"),
        (["--steps", "True"], "--steps is 'True'; expected a whole number"),
        (["--weights", "null"], r"--weights null: .* null is written '\$None'"),
        (["--weights=None"], r"--weights None: .* null is written '\$None'"),
        (["--pixdim=fine"], "--pixdim is 'fine'; expected a number, such as 0.8"),
        (
            ["--pair_limits", "2"],
            "--pair_limits is '2'; expected one of its parts, such as --pair_limits::training VALUE",
        ),
        (
            ["--pair_limit::test", "2"],
            r"unknown option --pair_limit::test; did you mean --pair_limits\?; known options are",
        ),
        (
            ["--intensity_percentiles", "5"],
            r"--intensity_percentiles is '5'; expected a list, such as \"\[0.5, 99.5\]\"",
        ),
        (["--inner_lr", "0"], "--inner_lr is '0'; expected more than 0, such as 0.0002"),
        (["--spatial_dims", "2.0"], "--spatial_dims is '2.0'; expected a whole number, such as 3"),
        (["--spatial_dims", "4"], "--spatial_dims is '4'; expected 2 or 3"),
        (["--window_mm", "0"], "--window_mm is '0'; expected more than 0, such as 21.6"),
        (["--size_divisor", "-8"], "--size_divisor is '-8'; expected more than 0, such as 8"),
        (["--regularisation_weight", "-1"], "--regularisation_weight is '-1'; expected 0 or more, such as 60.0"),
        (["--leading_maps", "9"], r"--leading_maps is '9'; expected a list, such as \"\[0\]\""),
        (["--control_points", "5"], "--control_points is '5'; expected a list, with a number for each axis"),
        (["--pictures", "false"], "--pictures is 'false'; expected True or False"),
        (["--steps"], "--steps has no value; write --steps VALUE"),
        (["--output_dir"], "--output_dir has no value"),
        (["--datalist", "None"], r"null is written '\$None'; a file of that name is ./None"),
        (["--device", "cuda:99"], "device is cuda:99, and torch finds .* GPU here; expected cpu"),
        (["--device", "graphics"], "device is 'graphics'; expected cpu"),
    ],
)
def test_wrong_options_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        check(["--config_file", str(INFERENCE), *arguments])


def test_commands_without_a_configuration_are_left_to_monai():
    check(["--foo", "1"])


def test_a_missing_configuration_is_one_line():
    with pytest.raises(
        FileNotFoundError, match="configuration not found: configs/missing.yaml; give a file, or a name in "
    ):
        check(["--config_file", "configs/missing.yaml"])


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("a: [1", "while parsing a flow sequence"),
        ("7", "expected keys and values, found int"),
        ("", "expected keys and values, found nothing"),
        ("2025: a", "expected names for keys, found 2025"),
        ("a: 1\nb: 2\na: 3", "names 'a' twice; keep one of them"),
        ("a: {b: 1, b: 2}", "names 'b' twice; keep one of them"),
        ("a: &here {b: 1}\nc: {<<: *here}", "could not determine a constructor"),
        ("a: 1\nb::c: 2", "b::c changes a part of b, which is not there"),
        ("a: [1]\na::b: 2", "a::b changes a part of a, which is not there"),
        ("a: [1]\n+a: 2", r"\+a adds int to list; expected two lists or two mappings"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_line(tmp_path, text, cause):
    (tmp_path / "broken.yaml").write_text(text)
    with pytest.raises(ValueError, match=f"broken.yaml cannot be read: .*{cause}"):
        check(["--config_file", str(tmp_path / "broken.yaml")])


def test_a_key_that_stands_twice_in_json_is_refused(tmp_path):
    (tmp_path / "twice.json").write_text('{"a": 1, "a": 2}')
    with pytest.raises(ValueError, match="twice.json cannot be read: names 'a' twice; keep one of them"):
        check(["--config_file", str(tmp_path / "twice.json")])


OVERLAYS = sorted(path.name for kind in ("overlays", "presets") for path in (CONFIGS / kind).iterdir())


@pytest.mark.parametrize("base", ["train.yaml", "inference.yaml", "inference.json", "maps.yaml"])
@pytest.mark.parametrize("overlay", [*OVERLAYS, None])
def test_configurations_are_read_as_monai_reads_them(base, overlay):
    names = [base, overlay] if overlay else [base]
    content = load_configurations(names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MONAI's, about a key that an overlay extends and the base does not have
        theirs = ConfigParser.load_config_files(list(map(str, find_configurations(names))))
    assert content == theirs
    assert list(content) == list(theirs)


def test_parts_are_changed_and_extended_as_monai_does(tmp_path):
    base = {"a": {"b": [{"c": 1}, 2]}, "l": [1], "m": {"x": 1, "y": 1}}
    changes = {"a::b::0::c": 3, "a#b#1": 4, "+l": [5], "+m": {"y": 6, "z": 7}, "+a::b": [8], "+new": 9, "a::d": None}
    for name, content in (("base", base), ("changes", changes)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    files = [str(tmp_path / f"{name}.json") for name in ("base", "changes")]
    content = load_configurations(files)
    assert content == {
        "a": {"b": [{"c": 3}, 4, 8], "d": None},
        "l": [1, 5],
        "m": {"x": 1, "y": 6, "z": 7},
        "new": 9,
    }
    with pytest.warns(UserWarning, match="Can't merge entry"):
        assert content == ConfigParser.load_config_files(files)


def test_configurations_of_the_package_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("configs/inference.yaml", "inference.yaml", "inference", "['configs/inference.yaml','quick.yaml']"):
        check(["--config_file", name, "--steps", "3"])


NAMES = ["2025", "2024_01", "1e3", "(2)", "a#1", "None", "True", "[a]", "{a: b}", "0x10", "-1", "1,2", "a 'b'", '"a"']


def test_names_are_as_they_are_typed():
    for name in NAMES:
        options = overrides.overrides(["--output_dir", name, f"--cache-dir={name}", "--steps", "1e1"])
        assert overrides.names_as_text(options) == {"output_dir": name, "cache_dir": name}
        assert overrides.parsed(options)["output_dir"] == name
        assert overrides.parsed(options)["steps"] == 10


@given(st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1))
def test_any_name_is_text_unless_it_is_of_the_language_of_configurations(name):
    options = overrides.overrides([f"--datalist={name}"])
    kept = {} if name[0] in "$@%" else {"datalist": name}
    assert overrides.names_as_text(options) == kept


@settings(deadline=None)
@given(st.text(min_size=1) | st.sampled_from(["a#1", "$x", "@a", "%d", "$__import__('os').abort()", "a::b"]))
def test_a_literal_name_is_itself_in_a_configuration(name):
    """MONAI makes ``::`` of ``#`` in all that a configuration holds, and runs what begins with a dollar."""
    parser = ConfigParser({"output_dir": overrides.literal(name), "data": [{"image": overrides.literal(name)}]})
    parser.parse()
    assert parser.get_parsed_content("output_dir") == name
    assert parser.get_parsed_content("data") == [{"image": name}]


def test_what_is_no_name_is_left_to_monai():
    options = overrides.overrides(
        [
            "--weights",
            "$None",
            "--dataset_dir=@other",
            "--map_weights",
            "['a.pt','b.pt']",
            "--pixdim",
            "2",
            "--pictures",
        ]
    )
    assert overrides.names_as_text(options) == {}
    assert overrides.parsed(options) == {
        "weights": "$None",
        "dataset_dir": "@other",
        "map_weights": DefaultParseValue("['a.pt','b.pt']"),
        "pixdim": 2,
        "pictures": True,
    }
