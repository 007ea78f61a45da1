"""A registration as files and JSON that viewers of MONAI Label understand."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from bundle import Registration
from bundle.apps.label.request import DISPLACEMENT, WARPED
from bundle.formats import displacement_image, save_image


@contextmanager
def new_file(folder: Path, suffix: str) -> Iterator[Path]:
    """A file for an answer; MONAI Label deletes it when it is sent, and this where the body fails, as nothing is sent.

    Args:
        folder: its folder.
        suffix: end of its name.
    """
    with tempfile.NamedTemporaryFile(dir=folder, suffix=suffix, delete=False) as file:
        path = Path(file.name)
    with removed_on_error(path):
        yield path


@contextmanager
def removed_on_error(path: Path) -> Iterator[None]:
    """Remove a file if the body fails."""
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def write_result(found: Registration, output: str, path: Path, proposal: bool = False) -> list[int]:
    """Write one output of a registration, in the geometry of the fixed image.

    Args:
        found: the registration.
        output: ``warped`` (float32), ``label`` (whole numbers), ``displacement`` (mm, LPS, as ITK reads it).
        path: output file; the suffix decides the format.
        proposal: the label is what the map networks propose, not the one carried over.

    Returns:
        Values of the visible structures of a label; empty for other outputs.

    Raises:
        OSError: when it cannot be written.
    """
    label = found.proposed_label if proposal else found.warped_label
    if output == DISPLACEMENT:
        nib.save(displacement_image(torch.as_tensor(found.displacement), found.affine), path)
    elif output == WARPED:
        save_image(found.warped[None], found.affine, np.dtype(np.float32), path)
    elif label is not None:
        structures = one_map(label)
        save_image(structures[None], found.affine, structures.dtype, path)
        return [int(value) for value in np.unique(structures) if value]
    return []


def one_map(label: np.ndarray) -> np.ndarray:
    """A label as a map of structures, ``(channels, X, Y, Z) -> (X, Y, Z)``, in the smallest type that holds it.

    OHIF reads the voxels as ``uint8`` whatever the file says. The k-th channel becomes the value k. Where channels
    overlap, the last one wins: it is a landmark within an organ.

    Args:
        label: an integer map of one channel, or a channel per structure.
    """
    if len(label) == 1:
        structures = np.rint(label[0]).astype(np.int64)
    else:
        numbers = np.arange(1, len(label) + 1).reshape(-1, 1, 1, 1)
        structures = ((label > 0) * numbers).max(axis=0)
    ends = (np.min_scalar_type(int(end)) for end in (structures.min(), structures.max()))
    return structures.astype(np.promote_types(*ends))


def named(values: Iterable[int], names: Mapping[int, str], remark: str = "") -> dict[str, int]:
    """Name -> value of the structures of a label, in the order of the values: viewers use both order and value.

    Args:
        values: values of the structures.
        names: value -> name, if it has one; one that several values have is followed by the value.
        remark: put after every name.
    """
    given = {value: names.get(value, f"structure {value}") for value in sorted(values)}
    often = Counter(given.values())
    return {(f"{name} {value}" if often[name] > 1 else name) + remark: value for value, name in given.items()}


def summary(found: Registration, fixed: str, moving: str, output: str) -> dict[str, Any]:
    """JSON part of an answer.

    Args:
        found: the registration.
        fixed: id of the image.
        moving: id of the image.
        output: kind of the file.
    """
    metrics = dict(found.metrics)
    del metrics["pair_id"]  # made from file names
    return {
        "pair": {"fixed": fixed, "moving": moving},
        "output": output,
        "verdict": metrics["verdict"]["verdict"],
        "reasons": metrics["verdict"]["reasons"],
        "score": metrics["verdict"]["score"],
        "losses": metrics["loss"],
        "dsc": metrics.get("dsc", {}),
        "tre_mm": metrics.get("tre_mm", {}),
        "centre_mm": metrics.get("centre_mm", {}),
        "lost_landmarks": metrics.get("lost_landmarks", {}),
        "seconds": sum(metrics["seconds"].values()),
        "metrics": metrics,
    }
