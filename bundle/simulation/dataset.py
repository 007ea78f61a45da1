"""A folder of simulated patients: the embedded default data."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from bundle.formats import displacement_image, nifti
from bundle.simulation.scan import known_displacement, simulate_scan
from bundle.simulation.slices import simulate_slices
from bundle.system import whole_folder
from bundle.system.files import is_occupied


def _save(image: nib.Nifti1Image, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    nib.save(image, path.absolute())  # nibabel takes a leading ~ for the home folder


def _pairs(patients: Sequence[str], moving_scans: int, fixed_scans: int) -> list[dict[str, Any]]:
    """Pairs of every patient with the next, in a ring, then of every patient's own scans."""
    neighbours = list(zip(patients, [*patients[1:], patients[0]], strict=True))
    return [
        {
            "fixed_image": f"images/{b}_{j}.nii.gz",
            "moving_image": f"images/{a}_{i}.nii.gz",
            "fixed_label": f"labels/{b}_{j}.nii.gz",
            "moving_label": f"labels/{a}_{i}.nii.gz",
            "pair_id": f"{a}_{i}_to_{b}_{j}",
            "patient": list(dict.fromkeys((a, b))),  # of the moving, of the fixed image
        }
        for a, b in [*neighbours, *zip(patients, patients, strict=True)]
        for i, j in product(range(moving_scans), range(fixed_scans))
        if (a, i) != (b, j)
    ]


def _write_dataset(folder: Path, patients: int, scans: int, seed: int) -> None:
    names = [f"P{number:02d}" for number in range(patients)]
    held_out = max(2, round(patients / 6))
    training, validation, test = names[: -2 * held_out], names[-2 * held_out : -held_out], names[-held_out:]
    datalist = {
        "training": [
            {"image": f"images/{name}_{k}.nii.gz", "label": f"labels/{name}_{k}.nii.gz", "patient": name}
            for name, k in product(training, range(scans))
        ],
        "validation": _pairs(validation, 1, 2),
        "test": _pairs(test, scans, scans),
    }
    (folder / "datalist.json").write_text(json.dumps(datalist, indent=2) + "\n")

    with (folder / "patients.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "patient"])
        table.writerows([f"{name}_{k}", name] for name, k in product(names, range(scans)))

    for number, name in enumerate(names):
        patient_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        volumes = [simulate_scan(patient_seed, k) for k in range(scans)]
        for k, scan in enumerate(volumes):
            _save(nifti(scan.image, scan.affine), folder / "images" / f"{name}_{k}.nii.gz")
            _save(nifti(scan.labels, scan.affine), folder / "labels" / f"{name}_{k}.nii.gz")
        if name not in test:
            continue
        for (i, moving), (j, fixed) in product(enumerate(volumes), repeat=2):
            if i != j:
                truth = displacement_image(torch.as_tensor(known_displacement(fixed, moving)), fixed.affine)
                _save(truth, folder / "displacements" / f"{name}_{i}_to_{name}_{j}.nii.gz")


def simulate_dataset(output_dir: str | os.PathLike[str], patients: int = 12, scans: int = 2, seed: int = 0) -> Path:
    """Write a simulated data set: ``images/``, ``labels/``, ``patients.csv``, ``datalist.json``, ``displacements/``.

    ``training`` lists single images; ``validation`` and ``test``, each of a sixth of the patients, list pairs between
    patients and between repeat scans of one. Label channels are ``bundle.simulation.anatomy.STRUCTURES``; the inner
    landmarks correspond only between scans of one patient. ``displacements/`` has the true displacement of the repeat
    pairs in ``test``: float32 ``(X, Y, Z, 1, 3)``, mm, LPS, on the fixed image's grid; fixed point + displacement =
    moving point.

    Args:
        output_dir: folder to create; it appears complete or not at all.
        patients: number of patients, at least 6.
        scans: scans per patient, at least 2.
        seed: from 0; the same seed gives the same arrays.

    Returns:
        The folder.

    Raises:
        FileExistsError: if ``output_dir`` exists and is not an empty folder.
        ValueError: for too few patients or scans, or a negative seed.
    """
    if patients < 6 or scans < 2 or seed < 0:
        raise ValueError(
            f"patients={patients}, scans={scans}, seed={seed}; expected at least 6 patients, 2 scans and a seed from 0"
        )
    output = Path(output_dir).resolve()
    if is_occupied(output):
        raise FileExistsError(f"{output} exists and is not an empty folder; choose another or remove it")
    with whole_folder(output) as folder:
        _write_dataset(folder, patients, scans, seed)
    return Path(output_dir)


def write_example(output_dir: str | os.PathLike[str]) -> list[Path]:
    """Write what the commands of the README name: ``my_data/`` and ``my_slices/``, and a list of pairs of each.

    Args:
        output_dir: folder that they are written into.

    Returns:
        What was written.

    Raises:
        FileExistsError: if one of them is there already; nothing is written then.
    """
    output = Path(output_dir)
    places = [output / name for name in ("my_data", "my_pairs.json", "my_slices", "my_slices.json")]
    there = [str(place) for place in places if place.exists()]
    if there:
        raise FileExistsError(f"already there: {', '.join(there)}; move it away, or give another --output_dir")
    volumes, pairs, slices, slice_pairs = places
    simulate_dataset(volumes, patients=6)
    (volumes / "datalist.json").unlink()  # the folder's layout says it all, as in most people's folders
    with whole_folder(slices.resolve()) as folder:
        simulate_slices(folder)
    sides = ("moving", "fixed")
    of_volumes = {f"{side}_image": f"images/P00_{number}.nii.gz" for number, side in enumerate(sides)}
    of_slices = {f"{side}_image": f"{side}/a.png" for side in sides} | {"landmarks": "landmarks/a.csv"}
    for path, pair in ((pairs, of_volumes), (slice_pairs, of_slices)):
        path.write_text(json.dumps({"test": [pair]}) + "\n")
    return places
