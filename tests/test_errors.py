"""A configuration that names something by the room where it was hears where it is."""

import pytest
from monai.bundle import ConfigParser

import bundle  # noqa: F401
from bundle.system import one_line, root_cause


@pytest.mark.parametrize(
    ("written", "now"),
    [
        ({"_target_": "bundle.registration.NativeOutputsd"}, "bundle.results.NativeOutputsd"),
        ({"_target_": "bundle.data.LoadPaird", "keys": []}, "bundle.formats.LoadPaird"),
        ("$bundle.evaluation.Experiment()", "bundle.experiment.Experiment"),
        ("$bundle.console.setup()", "bundle.system.console"),
    ],
)
def test_a_name_that_moved_is_said(written, now):
    with pytest.raises((ModuleNotFoundError, RuntimeError)) as error:
        ConfigParser({"imports": ["$import bundle"], "part": written}).get_parsed_content("part")
    assert one_line(root_cause(error.value)).endswith(f"it is now {now}")


def test_a_name_that_never_was_is_not_explained():
    with pytest.raises(ModuleNotFoundError) as error:
        ConfigParser({"part": {"_target_": "bundle.data.Nothing"}}).get_parsed_content("part")
    assert "now" not in one_line(error.value)
