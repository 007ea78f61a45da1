"""Options of ``python -m monai.bundle run``: what is refused in one line, and names that stay text."""

import pytest
from fire.parser import DefaultParseValue
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from workflow_fixtures import INFERENCE, TRAIN

from bundle.system import overrides


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
    ],
)
def test_known_options_pass(arguments):
    check(["--config_file", f"['{TRAIN}', '{INFERENCE}']", *arguments])


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
        (["--pictures", "false"], "--pictures is 'false'; expected True or False"),
        (["--steps"], "--steps has no value; write --steps VALUE"),
        (["--output_dir"], "--output_dir has no value"),
        (["--datalist", "None"], r"null is written '\$None'; a file of that name is ./None"),
        (["--device", "cuda:99"], "device is cuda:99, but torch finds .* GPU.s. here; expected one of cpu"),
        (["--device", "graphics"], "device is 'graphics'; expected one of cpu"),
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


@pytest.mark.parametrize(("text", "cause"), [("a: [1", "while parsing a flow sequence"), ("7", "int")])
def test_a_file_that_is_no_configuration_is_one_line(tmp_path, text, cause):
    (tmp_path / "broken.yaml").write_text(text)
    with pytest.raises(ValueError, match=f"broken.yaml cannot be read: .*{cause}"):
        check(["--config_file", str(tmp_path / "broken.yaml")])


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
