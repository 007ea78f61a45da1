"""What an error says: where a name of a configuration is now, and what the system refused."""

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


def test_what_the_system_refuses_is_said_without_its_number(tmp_path):
    with pytest.raises(OSError) as error:
        (tmp_path / "file").open()
    assert one_line(error.value) == f"{tmp_path / 'file'} cannot be read or written: No such file or directory"
    assert one_line(OSError("the disk is gone")) == "the disk is gone"
