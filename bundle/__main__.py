"""``python -m bundle COMMAND``: what is not a MONAI workflow."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fire
from monai.bundle import ConfigParser

from bundle.data import check_data as check
from bundle.dicom import list_series
from bundle.evaluation import compare as compare_runs
from bundle.experiment import Experiment
from bundle.results import apply_transform
from bundle.simulation import simulate_dataset
from bundle.system import CONFIGS, console, written_whole
from bundle.system.errors import printable

EXPERIMENT = str(CONFIGS / "experiment.yaml")


def simulate(output_dir: str, patients: int = 12, scans: int = 2, seed: int = 0) -> None:
    """Write a simulated 3D TRUS data set with labels, landmarks and a datalist.

    Args:
        output_dir: new folder for the data set.
        patients: number of patients, each with an anatomy of its own.
        scans: scans per patient, deformed against each other.
        seed: the same seed gives the same data.
    """
    print("simulated data:", simulate_dataset(output_dir, patients=patients, scans=scans, seed=seed))


def check_data(dataset_dir: str, datalist: str | None = None, pairing: str = "paired") -> None:
    """Print what would be used of a data set, and every problem at once.

    Args:
        dataset_dir: folder of images.
        datalist: JSON with training, validation and test lists; without it the folder's layout is read.
        pairing: 'paired', 'fixed' or 'moving' images of paired folders; 'repeat' for scans of one patient.
    """
    report = check(dataset_dir, datalist, pairing=pairing)
    print(report)
    sys.exit(bool(report.problems))


def dicom_series(folder: str, output_dir: str | None = None) -> None:
    """Print every image series below a folder of DICOM: size, spacing, and whether and why not it can be registered.

    Args:
        folder: with files of any names, several series mixed.
        output_dir: every volume that can be registered is copied to a folder of its own in it, for pairs to name.
    """
    lines, good = list_series(folder, output_dir)
    for line in lines:
        print(printable(line))
    sys.exit(not good)


def write_json() -> None:
    """Rewrite configs/train.json and configs/inference.json, which ``monai.bundle.load`` asks for, from the YAML.

    That function knows nothing of this package: how many maps the shipped network sees is written down for it.
    """
    contents = {name: ConfigParser.load_config_file(CONFIGS / f"{name}.yaml") for name in ("train", "inference")}
    maps_seen = ConfigParser(contents["inference"]).get_parsed_content("maps_seen")
    for name, content in contents.items():
        content["maps_seen"] = maps_seen
        with written_whole(CONFIGS / f"{name}.json") as file:
            file.write(json.dumps(content, indent=2) + "\n")


def compare(results: str) -> None:
    """Print a table of several inference runs over the same pairs.

    Args:
        results: output folders, separated by commas.
    """
    folders = results.split(",") if isinstance(results, str) else list(results)
    print(compare_runs(folders))


def apply(
    transform: str,
    moving: str | Sequence[str],
    output: str,
    reference: str | None = None,
    inverse: bool = False,
    label: bool | str = False,
    moving_grid: str | None = None,
) -> None:
    """Apply a saved transform to images, labels, points and surfaces.

    Args:
        transform: displacement.nii.gz, transform.h5 or .tfm of a pair, or a transform of ITK, 3D Slicer or ANTs.
        moving: file to move, or several separated by commas; points and surfaces go where the moved image shows them.
        output: file, or for several a folder.
        reference: image whose grid the result has: the fixed image.
        inverse: move files of the fixed image to the moving one, which is the reference then.
        label: the images are labels, which keep their values; 'gaussian' for smooth borders.
        moving_grid: the image that points of a CSV in voxels belong to.
    """
    files = [name.strip() for name in moving.split(",")] if isinstance(moving, str) else list(map(str, moving))
    mode = "nearest" if label is True else label or None
    for line in apply_transform(transform, files, output, reference, inverse, mode, moving_grid):
        print(line)


def experiment(
    dataset_dir: str,
    output_dir: str = "runs/experiment",
    config_file: str | Sequence[str] = EXPERIMENT,
    **overrides: Any,
) -> None:
    """Train, register and compare every method of the experiment; stop it any time, the same command goes on.

    Args:
        dataset_dir: folder of images with labels, or of the source tasks of configs/experiment_2d.yaml.
        output_dir: folder of the trained networks, the results and report.html.
        config_file: what is compared, see configs/experiment.yaml; further files change the first.
        overrides: keys of the configuration with other values, such as target_dir of configs/experiment_2d.yaml.
    """
    files = [config_file] if isinstance(config_file, str) else list(config_file)
    report = Experiment(files, Path(dataset_dir).absolute(), Path(output_dir).absolute(), overrides).run()
    print("report:", report)


def main() -> None:
    """Run a command of this package."""
    console.setup()
    fire.Fire(
        {
            "apply": apply,
            "check_data": check_data,
            "compare": compare,
            "dicom_series": dicom_series,
            "experiment": experiment,
            "simulate": simulate,
            "write_json": write_json,
        },
        name="python -m bundle",
    )


if __name__ == "__main__":
    main()
