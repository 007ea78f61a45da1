"""Fixtures of the whole-workflow tests: tiny pairs, and commands that run in processes of their own."""

import json
import multiprocessing
import os
import pkgutil
import runpy
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
from dicom_toys import RAS_TO_LPS, write_series
from scipy.ndimage import gaussian_filter

from bundle.simulation import simulate_dataset

ROOT = Path(__file__).resolve().parents[1]
TRAIN, INFERENCE = ROOT / "configs/train.yaml", ROOT / "configs/inference.yaml"
# The images are unrelated: with a stiff field the initial alignment would be the best state of every pair.
SMALL = {
    "pixdim": 5,
    "channels": 2,
    "downsampling": 1,
    "steps": 2,
    "regularisation_weight": 0.5,
    "precision": "float32",  # alike on processors with and without bfloat16
}
SMALL_TRAINING = {
    **SMALL,
    "iterations": 4,
    "iterations_per_epoch": 2,
    "inner_steps": 2,
    "versions": 1,
    "inner_lr": 0.01,
}
SHAPE = (20, 18, 16)
PATIENCE = 400
"""Seconds: nothing takes as long, unless it hangs."""
PATIENTS = {"training": "ABC", "validation": "DE", "test": "FG"}

# Threads that spin while another process has their core make small tensors a hundred times slower.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# A process forked from a server that has imported everything starts at once; importing takes seconds.
FORKS = multiprocessing.get_context("forkserver")
ROOMS = [
    "bundle.api",
    "bundle.evaluation.table",
    "bundle.experiment.report",
    "bundle.maps",
    "bundle.meta",
    "bundle.simulation",
    "bundle.system.overrides",
]
FORKS.set_forkserver_preload(["torch", "monai.bundle", "monai.engines", "matplotlib.pyplot", *ROOMS])


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The error lines, which MONAI's notices about configuration files precede."""
        notices = ("parsing config_file", "Not all config files are in ")
        return "\n".join(line for line in self.err.splitlines() if not line.startswith(notices))


def hold(place, number):
    """Have a function, once it has done its work, wait until the process has taken a signal.

    So a run is not over before a test has sent it, however late the test gets its turn.

    Args:
        place: of the function, such as ``package.module.Class.method``.
        number: of the signal; one that cannot be caught holds the process until it dies.
    """
    owner, name = pkgutil.resolve_name(place.rpartition(".")[0]), place.rpartition(".")[2]
    work = getattr(owner, name)

    def held(*args, **kwargs):
        setattr(owner, name, work)
        handler = signal.getsignal(number)
        result = work(*args, **kwargs)  # the signal may come in the middle of it
        while signal.getsignal(number) is handler:
            time.sleep(0.005)
        return result

    setattr(owner, name, held)


def wait_for(condition, process):
    """Wait until a process has done something."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        assert process.is_alive() or condition(), f"ended with {process.exitcode}"
        time.sleep(0.005)


def execute(module, arguments, folder, environment, streams, held):
    """``python -m module arguments`` in a forked process, which leads a group."""
    os.setpgrp()
    multiprocessing.set_start_method(None, force=True)  # its workers start as they do of a command, not as it did
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    os.environ.update(environment)
    for number, path in enumerate(streams, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = [module, *arguments]
    code = 0
    try:
        if held:
            hold(*held)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.exit(code)


def without_checkout():
    """The variables of the environment without the one that leads Python to the checkout."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def options(values):
    """Options of a command line."""
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


class Command:
    """``python -m`` as processes of their own, whose output goes to a temporary folder."""

    def __init__(self, folder):
        self.folder = folder
        self.streams = (folder / "out.txt", folder / "err.txt")

    def start(self, module, *arguments, environment=None, held=None):
        """Start a process; ``held`` are the arguments of ``hold``."""
        process = FORKS.Process(
            target=execute, args=(module, list(map(str, arguments)), self.folder, environment or {}, self.streams, held)
        )
        process.start()
        return process

    def __call__(self, module, *arguments, environment=None):
        process = self.start(module, *arguments, environment=environment)
        process.join(PATIENCE)
        if process.is_alive():
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f"still running after {PATIENCE} s: {module} {' '.join(map(str, arguments))}")
        return Finished(process.exitcode, *(path.read_text() for path in self.streams))

    def train(self, output_dir, config=TRAIN, **values):
        values = {"output_dir": output_dir, **SMALL_TRAINING, **values}
        return self("monai.bundle", "run", "training", "--config_file", config, *options(values))

    def register(self, output_dir, config=INFERENCE, **values):
        values = {"output_dir": output_dir, "pictures": False, "quality_pages": False, **SMALL, **values}
        return self("monai.bundle", "run", "--config_file", config, *options(values))


@pytest.fixture
def command(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return Command(folder)


def volume(seed, shape=SHAPE):
    """A smooth random image in [0, 100] and the label of its bright part."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.0)
    image = 100 * (noise - noise.min()) / np.ptp(noise)
    return image.astype(np.float32), (image > 60).astype(np.uint8)


def write_volume(path, array, spacing=(5.0, 5.5, 6.0)):
    """Write a NIfTI image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([*spacing, 1.0])), path)


def write_dicom_series(folder, image):
    """Write an ITK image as the slices of a DICOM series, with names in the order of the slices."""
    lps = np.eye(4)
    lps[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.array(image.GetSpacing())
    lps[:3, 3] = image.GetOrigin()
    voxels = itk.array_from_image(image).transpose(2, 1, 0)
    for number, path in enumerate(write_series(folder, voxels, RAS_TO_LPS @ lps)):
        path.rename(folder / f"{number:03d}.dcm")


def write_json(path, content):
    """Write JSON, and return where."""
    path.write_text(json.dumps(content))
    return path


def pair(moving, fixed, **more):
    """Entry of a datalist for a pair of the tiny data set."""
    sides = (("moving", moving), ("fixed", fixed))
    paths = {f"{side}_{kind}": f"{kind}s/{name}.nii.gz" for side, name in sides for kind in ("image", "label")}
    return {**paths, "patient": [moving, fixed], **more}


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory):
    """Seven labelled volumes of as many patients, and a datalist; read only."""
    root = tmp_path_factory.mktemp("tiny")
    for seed, name in enumerate("ABCDEFG"):
        image, label = volume(seed)
        write_volume(root / f"images/{name}.nii.gz", image)
        write_volume(root / f"labels/{name}.nii.gz", label)
    single = [{"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz", "patient": name} for name in "ABC"]
    write_json(root / "datalist.json", {"training": single, "validation": [pair(*"DE")], "test": [pair(*"FG")]})
    return root


@pytest.fixture
def dataset(tiny_dataset, tmp_path):
    """A copy of the tiny data set to spoil."""
    return Path(shutil.copytree(tiny_dataset, tmp_path / "data"))


@pytest.fixture(scope="session")
def simulated_dataset(tmp_path_factory):
    """Simulated patients; read only."""
    return simulate_dataset(tmp_path_factory.mktemp("simulated") / "data", patients=6)


@pytest.fixture(scope="session")
def trained(tiny_dataset, tmp_path_factory):
    """Folder of a finished training run on the tiny data set."""
    folder = tmp_path_factory.mktemp("trained")
    finished = Command(folder).train(folder / "run", dataset_dir=tiny_dataset, datalist=tiny_dataset / "datalist.json")
    assert finished.code == 0, finished.error
    return folder / "run"
