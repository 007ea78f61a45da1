"""Commands from functions: options by their signature, meanings by their docstring, names as they are typed."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence

import nibabel as nib
import numpy as np
import pytest
from dicom_toys import write_series
from workflow_fixtures import ROOT

import bundle
from bundle.__main__ import COMMANDS
from bundle.system import commands
from bundle.system.configurations import explained, unknown_option
from bundle.system.text import several

NAMES = [
    "2025",
    "2024_01",
    "1e3",
    "(2)",
    "a#1",
    "None",
    "True",
    "[a]",
    "{a: b}",
    "0x10",
    "-1",
    "a 'b'",
    "$x",
    "@y",
    "%z",
]


class Called:
    """Two commands, and what they were called with."""

    def __init__(self):
        self.values = None

    def move(
        self, source: str, target: Sequence[str], times: int = 1, back: bool = False, mode: bool | str = False
    ) -> None:
        """Move things. They stay whole.

        Args:
            source: where they are,
                or were.
            target: where they go.
            times: how often, 100 % at most.
            back: the other way.
            mode: how.
        """
        self.values = source, target, times, back, mode

    def show(self, *results: str, **others: str | None) -> None:
        """Show them.

        Args:
            results: which.
            others: Every key is one, such as --size 5 %.
        """
        self.values = results, others

    def ask(self, question: str, *, hint: str = "none", in_order: Sequence[str] = ("0", "1"), seed: int = 0) -> None:
        """Ask."""
        self.values = question, hint, in_order, seed

    def __call__(self, *words):
        commands.run("tool", {"move": self.move, "show": self.show, "ask": self.ask}, words, lambda: "tool 1.2")
        return self.values


@pytest.mark.parametrize("name", NAMES)
def test_names_stay_text(name):
    assert Called()("move", "--source", name, f"--target={name}") == (name, [name], 1, False, False)
    assert Called()("move", name, name) == (name, [name], 1, False, False)
    assert Called()("show", name, f"--any_key={name}") == ((name,), {"any_key": name})


def test_options_stand_anywhere_and_in_either_way():
    assert Called()("move", "--times=3", "a", "--back", "--mode", "soft", "--target", "b", "c") == (
        *("a", ["b", "c"], 3, True, "soft"),
    )
    assert Called()("move", "a", "b", "--back", "False", "--mode") == ("a", ["b"], 1, False, True)
    assert Called()("show", "a", "b", "--x-y", "1", "--flag", "--z=") == (
        ("a", "b"),
        {"x_y": "1", "flag": None, "z": ""},
    )
    assert Called()("ask", "why", "--in-order", "a-b", "c") == Called()("ask", "why", "--in_order", "a-b", "c")
    assert Called()("ask", "why", "--in-order=a-b") == ("why", "none", ["a-b"], 0)


def test_a_file_whose_name_begins_as_an_option_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("-x.nii", "--y=1", "--times"):
        (tmp_path / name).touch()
    assert Called()("move", "-x.nii", "--target", "--y=1", "--times", "2") == ("./-x.nii", ["./--y=1"], 2, False, False)
    with pytest.raises(ValueError, match="unknown option -z.nii"):
        Called()("move", "-z.nii", "b")


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["mvoe"], "'mvoe' is no command of tool; did you mean move?; commands are move, show, ask"),
        (["move", "a"], "--target is missing; tool move --help lists the options"),
        (
            ["move", "a", "b", "--time", "2"],
            "unknown option --time; did you mean --times?; known options are --source, --target, --times,",
        ),
        (["move", "a", "b", "2", "True", "x", "y"], "'y' belongs to no option"),
        (["move", "a", "b", "--times", "2.5"], "--times: expected a whole number, not '2.5'"),
        (["move", "a", "b", "two"], "--times: expected a whole number, not 'two'"),
        (["move", "a", "b", "--back", "maybe"], "--back: expected True or False, not 'maybe'"),
        (["move", "--source", "--target", "b"], "--source: expected one argument"),
        (["move", "a", "--target", "b", "--target", "c"], "--target is given twice; give it once"),
        (["show", "a", "--x-y", "1", "--x_y=2"], "--x_y is given twice; give it once"),
        (
            ["ask", "why", "because"],
            "'because' belongs to no option; known options are --question, --hint, --in_order, --seed",
        ),
        (["move", "-a", "b"], "unknown option -a; known options are --source"),
        (["move", "", "b"], "--source: expected a name or a value, not nothing"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_called(words, cause):
    called = Called()
    with pytest.raises(ValueError) as failure:
        called(*words)
    assert cause in str(failure.value)
    assert called.values is None


def test_help_lists_commands_options_meanings_and_defaults(capsys):
    Called()()
    assert "move  Move things. They stay whole." in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        Called()("move", "--help")
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--source SOURCE where they are, or were. (required)" in shown
    assert "--times TIMES how often, 100 % at most. (default: 1)" in shown
    assert "--back [BACK] the other way. --mode" in shown
    assert "usage: tool move SOURCE TARGET ... [TIMES] [--back] [--mode] Move" in shown
    with pytest.raises(SystemExit):
        Called()("show", "--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "usage: tool show RESULTS ... [--KEY VALUE ...] Show" in shown
    assert shown.endswith("Every key is one, such as --size 5 %.")
    with pytest.raises(SystemExit):
        Called()("ask", "--help")
    shown = capsys.readouterr().out
    assert shown.startswith("usage: tool ask QUESTION [--hint HINT] [--in_order IN_ORDER ...] [--seed SEED]\n\nAsk.")
    assert "(default: 0 1)" in shown and "(default: 0)" in shown


CONFIGURATION = """# A list of things.
imports:
  - $import x
# --- where ---
root: $x.root
size: 5                       # of a thing, 10 % at most;
                              # null: any
folder: "a b"                 # where they are
limits:                       # how many; null: all
  first: null
  last: 3                     # at the end
loss:                         # or another
  _target_: x.Loss
  size: '@size'
step: {_target_: x.Step}      # as it is
lines: []
# --- definitions ---
made: 1                       # of the above
"""


def test_help_lists_the_keys_of_a_configuration(tmp_path, monkeypatch, capsys):
    """Name, default and meaning, as its own comments say; parts of a component are none."""
    (tmp_path / "things.yaml").write_text(CONFIGURATION)
    (tmp_path / "small.yaml").write_text("size: 2\nlimits::last: 1  # fewer\n")
    monkeypatch.chdir(tmp_path)
    assert explained(["things.yaml", "small.yaml"]) == {
        "root": ("$x.root", ""),
        "size": ("2", "of a thing, 10 % at most; null: any"),
        "folder": ("a b", "where they are"),
        "limits::first": ("null", "how many; null: all"),
        "limits::last": ("1", "fewer"),
        "loss": ("x.Loss", "or another"),
        "step": ("{_target_: x.Step}", "as it is"),
        "lines": ("[]", ""),
    }
    with pytest.raises(SystemExit):
        Called()("show", "--results", "a", "--files=things.yaml", "--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "keys of things.yaml: --root VALUE (default: $x.root) --size VALUE of a thing, 10 % at most; null: any" in shown
    )
    assert "--limits::last VALUE at the end (default: 3) --loss VALUE" in shown


@pytest.mark.parametrize(
    ("words", "key", "default"),
    [
        (["register"], "--pixdim", "0.8"),
        (["register", "--config", "cpu.yaml"], "--pixdim", "2.4"),
        (["train"], "--iterations", "2000"),
        (["experiment"], "--seed", "0"),
        (["run", "--config_file", "configs/maps.yaml"], "--heat_map_mm", "6.0"),
    ],
)
def test_help_of_a_command_lists_the_keys_of_its_configuration(words, key, default, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bundle", *words, "--help"])
    with pytest.raises(SystemExit):
        commands.run("bundle", COMMANDS, sys.argv[1:], bundle.version)
    shown = " ".join(capsys.readouterr().out.split())
    assert re.search(rf"{key} VALUE [^(]*\(default: {re.escape(default)}\)", shown)
    assert shown.count(f"{key} VALUE") == 1


def test_a_command_names_its_own_options_first():
    content = {"imports": ["$import x"], "zoom": 1, "parts": {"a": 1}, "outputs": 2, "limits": [1]}
    assert unknown_option(["--ouput"], content, ["output", "zoom"]) == (
        "unknown option --ouput; did you mean --output?; known options are --output, --zoom, --outputs, --limits"
    )
    assert unknown_option(["part::a"], content).startswith("unknown option part::a; did you mean parts?; known")


def test_several_names_in_one_word(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert several("a, b") == ["a", "b"]
    assert several(["['a.yaml','b.yaml']", "c"]) == ["a.yaml", "b.yaml", "c"]
    assert several("[a]") == ["a"]
    for name in ("a, b", "[a]", "(x)"):
        (tmp_path / name).touch()
        assert several(name) == [name]


def test_version_is_that_of_the_package(capsys):
    commands.run("tool", {}, ["--version"], bundle.version)
    assert capsys.readouterr().out == f"meta-registration-bundle {bundle.__version__}\n"


PROGRAM = """
import sys, bundle.__main__ as main
sys.argv = ["bundle", *{words}]
try:
    main.main()
except (ValueError, OSError, SystemExit) as stop:
    print(stop)
slow = ("torch", "monai", "itk", "nibabel", "fire", "matplotlib")
print([name for name in slow if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["apply", "--help"],
        ["register", "--help"],
        ["apply", "--wrong", "1"],
        ["register", "nowhere.nii", "gone.nii"],
        ["train", "nowhere"],
    ],
)
def test_what_does_no_work_imports_nothing_that_takes_time(words):
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(words=words)], cwd=ROOT, capture_output=True, text=True
    )
    assert finished.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("words", "said", "imported"),
    [
        (["register", "docs", "--stepz", "5"], "unknown option --stepz; did you mean --steps?; known options are", []),
        (["register", "docs", "--processes", "2", "--stepz", "5"], "unknown option --stepz; did you mean --steps?", []),
        (["register", "LICENSE", "LICENSE", "--config", "gone.yaml"], "configuration not found: gone.yaml; give", []),
        (
            ["register", "docs", "--config_file", "cpu.yaml"],
            "--config_file is for python -m bundle run; here it is",
            [],
        ),
        (["train", "docs", "--config_file=cpu.yaml"], "--config_file is for python -m bundle run; here it is", []),
        (["train", "docs", "--itterations", "5"], "unknown option --itterations; did you mean --iterations?", []),
        (["train", "docs", "--config", "gone"], "configuration not found: gone; give a file, or a name in", []),
        (["train", "docs", "--iterations", "few"], "--iterations is 'few'; expected a whole number, such as", ["fire"]),
        (["run", "--config_file", "inference", "--stepz", "1"], "unknown option --stepz; did you mean --steps?", []),
        (["run", "maps"], "--config_file is missing; give a configuration, such as configs/inference.yaml", []),
        (["experiment", "nowhere"], "not found: nowhere; give the folder that holds the images", []),
        (["experiment", "docs", "--config_file", "gone"], "configuration not found: gone; give a file, or", []),
        (["experiment", "docs", "--sede", "1"], "unknown option --sede; did you mean --seed?; known", []),
        (["experiment", "docs", "--reference", "Ours"], "no method 'Ours'; expected Classical", ["fire"]),
    ],
)
def test_a_wrong_option_is_named_before_anything_that_takes_time_is_imported(words, said, imported):
    """The parser of values alone, fire, takes no time."""
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(words=words)], cwd=ROOT, capture_output=True, text=True
    )
    assert finished.stdout.startswith(said)
    assert finished.stderr.splitlines()[-1] == str(imported)


PRINTS = """
import sys; from bundle.system import console
console.setup()
try:
    print("a", flush=True)
except OSError:
    sys.exit("an error like those of a pair")
"""


@pytest.mark.parametrize("words", [["-m", "bundle", "--help"], ["-c", PRINTS]])
def test_a_reader_that_has_left_ends_the_program_quietly(words):
    reader, writer = os.pipe()
    os.close(reader)
    finished = subprocess.run([sys.executable, *words], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (finished.returncode, finished.stderr) == (128 + signal.SIGPIPE, "")


def test_data_of_dicom_are_checked_without_a_word_of_the_libraries(tmp_path):
    for name in ("a", "b", "c"):
        write_series(tmp_path / "images" / name, np.arange(210, dtype=np.uint16).reshape(7, 6, 5), np.eye(4))
    words = ["-m", "bundle", "check_data", tmp_path]
    finished = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert finished.stdout.splitlines()[-1] == "no problems"
    assert finished.stderr == ""


def test_data_are_checked_without_the_libraries_that_register_them(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        voxels = np.arange(8, dtype=np.uint8).reshape(2, 2, 2)
        nib.Nifti1Image(voxels, np.diag([2.0, 1, 1, 1])).to_filename(tmp_path / "images" / f"{name}.nii.gz")
    words = ["check_data", "--dataset_dir", str(tmp_path), "--pairing", "fixed"]
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(words=words)], cwd=ROOT, capture_output=True, text=True
    )
    assert "2 x 1 x 1" in finished.stdout
    assert finished.stderr.splitlines()[-1] == "['nibabel']"


NAME = 'it\'s (2) #1 a,b $x "y"'


@pytest.mark.parametrize(
    ("target", "variables", "words"),
    [
        (
            "experiment",
            {"DATASET": NAME, "EXPERIMENT": "x " + NAME},
            ["--dataset_dir", NAME, "--output_dir", "x " + NAME],
        ),
        ("weights", {"DATASET": NAME, "WEIGHTS": "x " + NAME}, ["--dataset_dir", NAME, "--output_dir", "x " + NAME]),
        ("experiment", {"EXPERIMENT": NAME}, ["--dataset_dir", NAME + "/data", "--output_dir", NAME]),
        ("label", {"STUDIES": NAME}, ["--studies", NAME]),
        ("run", {"RUNS": NAME}, ["compare", NAME + "/start", NAME + "/adapted"]),
    ],
)
def test_make_takes_names_as_they_are(target, variables, words):
    given = [f"{name}={value}" for name, value in variables.items()]
    old = [part for file in (".venv/ready", ".venv-label/ready") for part in ("--old-file", file)]
    made = subprocess.run(
        ["make", "--dry-run", *old, target, *given], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = [shlex.split(line) for line in made.stdout.replace("\\\n", "").splitlines()]
    assert any(line[-len(words) :] == words for line in lines), made.stdout
