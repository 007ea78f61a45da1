import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dicom_toys import oblique_affine, write_series
from test_experiment_2d import small_plan, write_pairs, write_slices
from workflow_fixtures import Command, volume

from bundle.experiment.results import slug
from bundle.simulation import write_example

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TINY = {
    "pixdim": 6.0,
    "map_pixdim": 6.0,
    "downsampling": 1,
    "channels": 2,
    "versions": 1,
    "inner_steps": 1,
    "iterations": 2,
    "iterations_per_epoch": 2,
}
TINY_TRAINING = shlex.join(f"--{key}={value}" for key, value in TINY.items())
TINY_SIZE = "--pixdim=6.0 --map_pixdim=6.0 --downsampling=1 --channels=2"
TINY_INFERENCE = f"{TINY_SIZE} --weights=runs/tiny/model.pt"


def blocks(language):
    """Pages, and the blocks of a language on each."""
    for page in PAGES:
        yield page.relative_to(ROOT), re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def snippets(language):
    for page, texts in blocks(language):
        for number, text in enumerate(texts):
            yield pytest.param(text, id=f"{page}-{number}")


@pytest.fixture(scope="module")
def user(tmp_path_factory):
    """A user's folder: the checkout's files, the example, more images of other kinds, weights of a tiny network."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("bundle", "configs", "models", "Makefile", "pyproject.toml", "setup.py", "constraints.txt"):
        (folder / name).symlink_to(ROOT / name)
    write_example(folder)
    write_pairs(folder / "my_domains/eye", "ab")
    write_slices(folder / "my_domains/brain")
    write_pairs(folder / "my_target/finetune", "cd")
    write_pairs(folder / "my_target/test", "efg", landmarks=True)
    for number, side in enumerate(("fixed", "moving")):
        voxels = np.rint(10 * volume(number)[0]).astype(np.uint16)
        write_series(folder / "my_dicom" / side / "pelvis", voxels, oblique_affine((4.0, 4.5, 5.0)))
    small_plan(folder / "small.json")
    write_series(folder / "my_study", np.arange(60, dtype=np.uint16).reshape(5, 4, 3), oblique_affine())
    (folder / "targets.csv").write_text("x,y,z,name\n1.5,2.5,3.5,left\n")
    control = [{"id": "1", "label": "tip", "position": [1.0, 2.0, 3.0]}]
    markups = {"markups": [{"type": "Line", "coordinateSystem": "LPS", "controlPoints": control}]}
    (folder / "needle.mrk.json").write_text(json.dumps(markups))
    train = "python -m monai.bundle run training --config_file configs/train.yaml --dataset_dir my_data"
    execute(f"{train} --output_dir runs/tiny {TINY_TRAINING}", folder)
    return folder


def execute(command, folder):
    """Run a documented line. Python modules run in processes that start at once; the shell runs all else."""
    words = shlex.split(command)
    if words[:2] != ["python", "-m"]:
        return shell(command, folder)
    finished = Command(folder)(*words[2:])
    assert finished.code == 0, finished.err[-3000:]
    return finished.out


def shell(command, folder):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    result = subprocess.run(
        command, shell=True, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert result.returncode == 0, result.stdout[-3000:]
    return result.stdout


def tiny(command):
    """The command with options that make it take seconds; the documented options stay."""
    if command.startswith("make run"):
        binaries = Path(sys.executable).parent
        return f"{command} -o .venv/ready BIN={binaries} RUNS=runs/demo OPTIONS='{TINY_TRAINING}'"
    if command.startswith("make experiment"):
        return f"{command} --dry-run"  # test_experiment.py runs it
    if command.startswith("make weights"):
        return f"{command} --dry-run"  # test_weights_plan.py runs it
    if command.startswith("make label"):
        return f"{command} --dry-run"  # test_label_server.py runs it
    if command == "python -m bundle example":
        return f"{command} --output_dir another"  # the folder has one already
    if "bundle experiment" in command:
        return command.replace("experiment_2d_cpu.yaml'", "experiment_2d_cpu.yaml','small.json'")
    if "2d.yaml" in command:
        return f"{command} --spatial_size '[24,24]'" + (" --iterations 2" if "run training" in command else "")
    if "bundle register" in command:
        return f"{command} {TINY_INFERENCE}"
    if "monai.bundle run maps" in command:
        return f"{command} --pixdim=6.0 --epochs=1 --spatial_size '[16,16,16]'"
    if "monai.bundle run training" in command or "bundle train" in command:
        return f"{command} {TINY_TRAINING}"
    if "monai.bundle run" in command:
        weights = re.search(r"--weights (\S+)", command)
        return f"{command} {TINY_INFERENCE}" if weights is None else f"{command} {TINY_SIZE}"
    return command


def commands():
    """The commands of every page that has some."""
    for page, texts in blocks("bash"):
        if texts:
            yield pytest.param("".join(texts).splitlines(), id=str(page))


@pytest.mark.parametrize("lines", commands())
def test_documented_commands_run(lines, user):
    """From top to bottom, as they are read: a command may need the results of those above it."""
    for line in lines:
        execute(tiny(line), user)


@pytest.mark.parametrize("text", snippets("python"))
def test_documented_python_runs(text, user):
    (user / "snippet.py").write_text(text)
    execute("python -m snippet", user)


@pytest.mark.parametrize("text", snippets("json"))
def test_documented_datalists_are_read(text, user):
    (user / "documented.json").write_text(text)
    json.loads(text)
    folder = "my_slices" if ".png" in text else "my_data"
    output = execute(f"python -m bundle check_data --dataset_dir {folder} --datalist documented.json", user)
    assert "no problems" in output


def test_links_of_the_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_results_of_the_readme_are_those_of_the_model_card():
    """The hippocampus had the DSC of weights that no longer ship."""
    summary = re.findall(r"^\| [^|]+ \| (0\.\d+) \| (0\.\d+) \| (0\.\d+) \|", (ROOT / "README.md").read_text(), re.M)
    card = (ROOT / "docs/README.md").read_text().partition("**What they do**")[2].partition("\n\nEarlier")[0]
    columns = (re.findall(rf"\| {row} \| (0\.\d+)", card) for row in ("not registered", "0 steps", "5 steps"))
    assert summary == list(zip(*columns, strict=True))


@pytest.mark.parametrize(("name", "files"), [("experiment", 19), ("domains", 21)])
def test_a_report_shows_the_files_beside_it_and_no_others(name, files):
    report = ROOT / "docs" / name / "report.html"
    page = report.read_text(encoding="utf-8")
    named = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(set(named)) == files
    assert {*named, report.name} == {path.name for path in report.parent.iterdir()}
    assert "base64" not in page


def test_docs_are_small():
    assert sum(path.stat().st_size for path in (ROOT / "docs").rglob("*") if path.is_file()) < 6e6


def table_rows(text):
    """Rows of the tables of a page by the heading above: {heading: {first cell: [cells]}}."""
    tables = {}
    for heading, body in re.findall(r"^## (.+)\n((?:(?!^## ).*\n?)*)", text, re.MULTILINE):
        rows = [
            [cell.strip(" *") for cell in line.strip("|").split("|")] for line in re.findall(r"^\|.*\|$", body, re.M)
        ]
        tables[heading] = {cells[0]: cells[1:] for cells in rows[2:]}
    return tables


@pytest.mark.parametrize(
    ("page", "columns", "least"),
    [
        ("experiment", (("dsc", 3), ("tre_mm", 2), ("hd95_mm", 1)), 60),
        ("domains", (("distance_px", 2), ("inverse_distance_px", 2), ("ncc", 3)), 20),
    ],
)
def test_tables_of_the_experiment_are_those_of_its_report(page, columns, least):
    tables = table_rows((ROOT / f"docs/{page}.md").read_text())
    compared = 0
    for path in sorted((ROOT / "docs").glob(f"{page}*/table_*.csv")):
        with path.open() as file:
            found = {row["method"]: row for row in csv.DictReader(file)}
        stated = {name: rows for name, rows in tables.items() if f"table_{slug(name)}.csv" == path.name}
        for rows in stated.values():
            assert rows.keys() == found.keys()
            for method, cells in rows.items():
                measured = [(key, digits) for key, digits in columns if found[method].get(f"{key}_mean")]
                for cell, (key, digits) in zip(cells, measured, strict=False):
                    mean, sd = (float(found[method][f"{key}_{part}"]) for part in ("mean", "sd"))
                    assert cell == f"{mean:.{digits}f} ± {sd:.{digits}f}", (method, key)
                    compared += 1
    assert compared > least
