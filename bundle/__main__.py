"""``python -m bundle COMMAND``: the command line of the bundle."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import bundle  # what takes seconds is imported inside the commands: --help needs none of it
from bundle.system import commands, configurations, console, threads
from bundle.system.errors import printable
from bundle.system.limits import refuse_missing
from bundle.system.text import several


def simulate(output_dir: str, patients: int = 12, scans: int = 2, seed: int = 0) -> None:
    """Write a simulated 3D TRUS data set with labels, landmarks and a datalist.

    Args:
        output_dir: new folder for the data set.
        patients: number of patients, each with a different anatomy.
        scans: scans per patient, deformed against each other.
        seed: the same seed gives the same data.
    """
    from bundle.simulation import simulate_dataset

    print("simulated data:", simulate_dataset(output_dir, patients=patients, scans=scans, seed=seed))


def example(output_dir: str = ".") -> None:
    """Write images and lists on which the commands of the README work as they stand.

    Args:
        output_dir: folder that gets my_data, my_slices, my_pairs.json and my_slices.json.
    """
    from bundle.simulation import write_example

    print("example:", ", ".join(map(str, write_example(output_dir))))


def check_data(dataset_dir: str, datalist: str | None = None, *, pairing: str = "paired") -> None:
    """Print what would be used of a data set, and every problem at once.

    Args:
        dataset_dir: folder of images.
        datalist: JSON with training, validation and test lists; without it, the folder's layout is read.
        pairing: 'paired' images of two folders, or the 'fixed' or 'moving' ones alone; 'repeat' scans of one patient.
    """
    from bundle.data import check_data as check

    report = check(dataset_dir, datalist, pairing=pairing)
    print(report)
    sys.exit(bool(report.problems))


def dicom_series(folder: str, output_dir: str | None = None) -> None:
    """Print every image series in a folder of DICOM: size, spacing, and whether it can be registered, or why not.

    Args:
        folder: folder of DICOM files; names do not matter, and series may be mixed.
        output_dir: folder to which every volume that can be registered is copied, into a folder of its own.
    """
    from bundle.dicom import list_series

    lines, good = list_series(folder, output_dir)
    for line in lines:
        print(printable(line))
    sys.exit(not good)


def write_json() -> None:
    """Write train.json, inference.json, inference_2d.yaml and fine_tune_2d.yaml in configs/ anew from their sources."""
    from bundle.system.twins import write_twins

    write_twins()


def compare(*results: str) -> None:
    """Print a table of several registrations of the same pairs.

    Args:
        results: output folders, one after the other or separated by commas.
    """
    from bundle.evaluation import compare as compare_runs

    print(compare_runs(several(results)))


def apply(
    transform: str,
    moving: Sequence[str],
    output: str,
    reference: str | None = None,
    *,
    inverse: bool = False,
    label: bool | str = False,
    moving_grid: str | None = None,
) -> None:
    """Apply a saved transform to images, labels, points and surfaces.

    Args:
        transform: folder of a pair, or displacement.nii.gz, transform.h5, .tfm in it; or one of ITK, 3D Slicer, ANTs.
        moving: file to move, or several separated by commas; points and surfaces go where the moved image shows them.
        output: output file, or a folder, which ends in / if it is new.
        reference: image whose grid the result has: the fixed image.
        inverse: move files of the fixed image to the moving one; the moving image is then the reference.
        label: the images are labels, which keep their values; 'gaussian' for smooth borders.
        moving_grid: image to which points of a CSV in voxels belong.
    """
    from bundle.results import apply_transform

    mode = "nearest" if label is True else label or None
    for line in apply_transform(transform, several(moving), output, reference, inverse, mode, moving_grid):
        print(line)


def experiment(
    dataset_dir: str,
    *,
    output_dir: str = "runs/experiment",
    config_file: Sequence[str] = ("experiment.yaml",),
    **overrides: str | None,
) -> None:
    """Train, register and compare every method of the experiment. After a stop, the same command continues.

    Args:
        dataset_dir: folder of images with labels, or of the source tasks of configs/experiments/experiment_2d.yaml.
        output_dir: folder of the trained networks, the results and report.html.
        config_file: what is compared (see configs/experiments/experiment.yaml); further files change the first.
        overrides: Every key of configs/experiments/experiment.yaml is an option too, as --pair_limits::test 5.
    """
    refuse_missing("the folder that holds the images", dataset_dir)
    from bundle.experiment import Experiment
    from bundle.system.overrides import settings

    files = [str(path) for path in configurations.find_configurations(several(config_file))]
    options = settings(files, {}, overrides, commands.options_of(experiment))
    planned = Experiment(files, Path(dataset_dir).absolute(), Path(output_dir).absolute(), options)
    with bundle.system.FolderLock(output_dir):  # another one would write its own lists of pairs for these runs
        print("report:", planned.run())


def register(
    fixed: str,
    moving: str | None = None,
    *,
    fixed_label: str | None = None,
    moving_label: str | None = None,
    output: str = "results",
    config: Sequence[str] = (),
    processes: int = 1,
    verbose: bool = False,
    quiet: bool = False,
    **overrides: str | None,
) -> None:
    """Register two images, or every pair of a folder or a datalist, as configs/inference.yaml says.

    Args:
        fixed: fixed image, onto which the other is moved; or, alone, a folder of images or a datalist (JSON).
        moving: moving image.
        fixed_label: label of the fixed image, used to measure; the steps see it with test_labels.yaml alone.
        moving_label: label of the moving image, which is moved too.
        output: output folder, with a folder for every pair.
        config: presets and overlays for inference.yaml, such as cpu.yaml, or inference_2d.yaml for slices.
        processes: how many processes share the pairs of a list; at most one for each GPU, or for each core without any.
        verbose: show what the libraries log.
        quiet: print nothing but warnings and errors.
        overrides: Every key of configs/inference.yaml is an option too; so are --fixed_mask, --moving_mask,
            --fixed_landmarks and --moving_landmarks, files of two images.
    """
    parts = {"fixed_label": fixed_label, "moving_label": moving_label}
    parts |= {key: overrides.pop(key) or f"the file of --{key}" for key in configurations.PARTS if key in overrides}
    refuse_missing("an image, a folder or a list of pairs", fixed, moving, *parts.values())
    files = configurations.on_inference([*several(config), *["multi_gpu_inference.yaml"] * (threads.started() > 1)])
    with tempfile.TemporaryDirectory() as folder:
        given = {**configurations.images_named(Path(folder), fixed, moving, parts), "output_dir": output}
        _workflow(register, "run", files, {"verbose": verbose, "quiet": quiet}, given, overrides, processes)


def train(
    dataset_dir: str,
    *,
    output: str = "runs/training",
    config: Sequence[str] = (),
    verbose: bool = False,
    quiet: bool = False,
    **overrides: str | None,
) -> None:
    """Meta-train on a folder of images as configs/train.yaml says. After a stop, the same command continues.

    Args:
        dataset_dir: folder of images.
        output: folder of checkpoints and weights.
        config: presets and overlays for train.yaml, such as cpu.yaml or labels.yaml.
        verbose: show what the libraries log.
        quiet: print nothing but warnings and errors.
        overrides: Every key of configs/train.yaml is an option too, such as --iterations 500 or --start_weights FILE.
    """
    refuse_missing("the folder that holds the images", dataset_dir)
    given, loudness = {"dataset_dir": dataset_dir, "output_dir": output}, {"verbose": verbose, "quiet": quiet}
    _workflow(train, "training", ["train.yaml", *several(config)], loudness, given, overrides)


def _workflow(
    command: commands.Command,
    run_id: str,
    files: Sequence[str],
    loudness: Mapping[str, bool],
    names: Mapping[str, str],
    options: Mapping[str, str | None],
    count: int = 1,
) -> None:
    """Check options, then run a workflow; ``names`` are files and folders, ``options`` may be expressions."""
    from bundle.system.overrides import settings

    values = settings(files, names, options, commands.options_of(command))
    from bundle.system import processes

    if count != 1 and threads.started() == 1:
        processes.launch(count, sys.argv[1:])
        return
    workflow = bundle.create_workflow(list(files), run_id=run_id, **values, **console.quiet_unless(**loudness))
    workflow.run()
    page = Path(options.get("output_dir") or names.get("output_dir", ""), "quality.html")
    if command is register and processes.is_first() and page.exists():
        print(f"see {page}")
    workflow.finalize()


def run(run_id: str = "run", config_file: Sequence[str] = (), **overrides: str | None) -> None:
    """Run a workflow as python -m monai.bundle run does, but from any folder and with file names left as typed.

    Args:
        run_id: part of the configuration to run, such as training or maps.
        config_file: configurations, files or names such as configs/train.yaml; further ones change the first.
        overrides: Every key of the configuration is an option too; --help after --config_file FILE lists them.
    """
    if not config_file:
        raise ValueError("--config_file is missing; give a configuration, such as configs/inference.yaml")
    _workflow(run, run_id, several(config_file), {"verbose": True}, {}, overrides)


LISTED = (register, train, check_data, apply, compare, experiment, dicom_series, example, simulate, run, write_json)
COMMANDS: dict[str, commands.Command] = {each.__name__: each for each in LISTED}


def main() -> None:
    """Run a command of this package."""
    console.setup()
    try:
        name = Path(sys.argv[0]).name
        program = name if name == "meta-registration" else "python -m bundle"
        commands.run(program, COMMANDS, sys.argv[1:], bundle.version)
    finally:
        print(end="", flush=True)  # while a reader that has left can still be told from an error


if __name__ == "__main__":
    main()
