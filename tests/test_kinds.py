"""Values and keys of configurations that users write: refused as options are, in one line that names the file."""

import pytest
from workflow_fixtures import INFERENCE, TRAIN

import bundle
from bundle.experiment.plan import read_plan
from bundle.system import CONFIGS, overrides
from bundle.system.kinds import load_checked

OVERLAYS = sorted(path for kind in ("overlays", "presets") for path in (CONFIGS / kind).iterdir())


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_what_ships_passes(overlay):
    for base in ("train.yaml", "inference.yaml", "maps.yaml"):
        assert load_checked([base, overlay])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: -3", "mine.yaml: steps is -3; expected 0 or more, such as 5"),
        ("steps: 2.5", "mine.yaml: steps is 2.5; expected a whole number, such as 5"),
        ("steps: null", "mine.yaml: steps is None; expected a whole number"),
        ("pixdim: 0.8 mm", "mine.yaml: pixdim is '0.8 mm'; expected a number, such as 0.8"),
        ("inner_lr: 0", "mine.yaml: inner_lr is 0; expected more than 0"),
        (
            "inner_lr: 1e-4",
            "mine.yaml: inner_lr is '1e-4'; expected a number, such as 0.0002; YAML reads a number with e as text",
        ),
        ("spatial_dims: 4", "mine.yaml: spatial_dims is 4; expected 2 or 3"),
        ("pictures: 1", "mine.yaml: pictures is 1; expected True or False"),
        ("held_maps: 1", "mine.yaml: held_maps is 1; expected a list"),
        ("quality: strict", "mine.yaml: quality is 'strict'; expected one of its parts, such as quality::similarity"),
        ("stpes: 3", r"mine.yaml: nothing uses the key stpes; did you mean steps\?"),
        ("dropout: 0.1", "mine.yaml: nothing uses the key dropout; take it out"),
        ("pair_limit: {test: 3}", r"mine.yaml: nothing uses the key pair_limit; did you mean pair_limits\?"),
    ],
)
def test_wrong_overlays_are_refused(text, message, tmp_path):
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(text)
    with pytest.raises(ValueError, match=message):
        overrides.check_overrides({"config_file": [str(INFERENCE), str(overlay)]})
    with pytest.raises(ValueError, match=message):
        bundle.create_workflow([str(INFERENCE), str(overlay)])


@pytest.mark.parametrize("name", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_refused_in_python_too(name):
    """It ended in an error of MONAI about the component that was first to use it."""
    with pytest.raises(ValueError, match=f"^device is '?{name}'?.*; expected cpu"):
        bundle.create_workflow("inference.yaml", device=name)


@pytest.mark.parametrize(
    "text",
    [
        "pixdim: 1\nregularisation_weight: 0\nweights: null\nsimilarity_gain_limits: null\nsteps: $2 + 1",
        "factor: 2\nsteps: $@factor * 5",
        "rotation: 0.2  # of train.yaml: an overlay may be for both",
        "mine: [$import bundle, $print(bundle.version())]",
        "_shared: &shared {test: 3}\npair_limits: *shared",
        "pair_limits::test: 3\nquality::score: null\n+imports: [$import sys]",
    ],
)
def test_overlays_that_mean_something_pass(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    assert load_checked([INFERENCE, tmp_path / "mine.yaml"])


def test_a_configuration_of_ones_own_is_checked_too(tmp_path):
    (tmp_path / "whole.yaml").write_text(TRAIN.read_text().replace("iterations: 2000 ", "iterations: 0 "))
    with pytest.raises(ValueError, match="whole.yaml: iterations is 0; expected more than 0"):
        load_checked(tmp_path / "whole.yaml")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{training: null, test: 4}", {"training": None, "test": 4}),
        ("{training: None}", {"training": None}),
        ("[0.0, null]", [0.0, None]),
        ("{_target_: L1Loss, flags: [true, false]}", {"_target_": "L1Loss", "flags": [True, False]}),
        ("['gland', 'null_space']", ["gland", "null_space"]),
    ],
)
def test_words_within_brackets_are_those_of_yaml(text, found):
    assert overrides.parsed({"quality": [text]}) == {"quality": found}


@pytest.mark.parametrize("value", ["{training: null}", "{training: {a: [true]}}"])
def test_where_monai_reads_words_as_text_they_are_refused(value):
    overrides.refuse_words({"pair_limits": ["{training: None}"], "output_dir": ["[null]"], "pictures": []})
    with pytest.raises(ValueError, match="--pair_limits .*: within brackets write None, True and False, as in Python"):
        overrides.refuse_words({"pair_limits": [value]})


PLAN = CONFIGS / "experiments/experiment.yaml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "methods::LocalNet::options: {stpes: 3}",
            r"'LocalNet' in 'Between patients': unknown option stpes; did you mean steps",
        ),
        ("training_options: {inner_lr: -1}", "trainings: 'meta': inner_lr is -1; expected more than 0"),
        (
            "trainings::meta::options: {iterations: 1e3}",
            "trainings: 'meta': iterations is '1e3'; expected a whole",
        ),
        ("trainings::maps::options: {epoch: 3}", r"trainings: 'maps': unknown option epoch; did you mean epochs\?"),
        ("inference_options: {pictures: maybe}", "pictures is 'maybe'; expected True or False"),
        ("trainings::meta::configs: [none_such.yaml]", "trainings: 'meta': configuration not found: none_such.yaml"),
        ("titel: mine", r"plan.yaml: nothing uses the key titel; did you mean title\?"),
        ("seed: 0.5", "plan.yaml: seed is 0.5; expected a whole number"),
    ],
)
def test_wrong_options_of_a_plan_are_refused_before_it_begins(text, message, tmp_path):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_plan([str(PLAN), str(tmp_path / "plan.yaml")], {})


def test_null_of_the_command_line_is_null_in_a_plan():
    assert read_plan([str(PLAN)], {"report_dir": "$None"})["report_dir"] is None
    with pytest.raises(ValueError, match=r"--seed is '\$None'; expected a whole number"):
        read_plan([str(PLAN)], {"seed": "$None"})
