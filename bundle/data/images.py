"""Single images of a data set, for networks that see one image at a time, split by patient like its pairs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from bundle.data.datalist import FRACTIONS, read_entries, refuse
from bundle.data.layouts import SECTIONS, SIDES
from bundle.data.pairing import single_images
from bundle.data.splits import split_folds
from bundle.data.validation import Sections
from bundle.system.errors import DataWarning


def read_images(
    dataset_dir: str | Path,
    datalist: str | Path | None = None,
    *,
    side: str | None = None,
    pairing: str | None = None,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    folds: int | None = None,
    fold: int | None = None,
) -> Sections:
    """Read the labelled images of a data set, each once.

    The sections are those of :func:`bundle.data.datalist.read_datalist` for the same data, ``pairing``, ``fractions``
    and ``seed``: a network trained on the training images has seen no patient of the validation and test pairs.

    Args:
        dataset_dir: folder of the data set, in any layout that ``read_datalist`` takes.
        datalist: as there; pairs give the images of both sides.
        side: ``fixed`` or ``moving``: only these images of pairs and of folders of two sides; None: both. Where folders
            are split it goes with the ``pairing`` of the same name, or ``paired``.
        pairing: pairing of the registration whose split is kept; None: that of the ``side``, or ``paired`` without one.
        fractions: share of the patients in training, validation and test, if the folders are split.
        seed: seed of the split and of the folds.
        folds: number of parts into which the training patients are divided; None trains on all of them.
        fold: the part, from 0, that is left out of training and replaces the data set's own validation.

    Returns:
        Images of each section: ``image``, ``label``, ``patient`` (a tuple of one) and, where given, ``structures``,
        ``mask``, ``landmarks`` and ``task``. Images without a label are left out, with a warning that counts them.

    Raises:
        FileNotFoundError: when the folder or the datalist does not exist.
        ValueError: on everything else that is wrong.
    """
    if (folds is None) != (fold is None) or (fold is not None and not 0 <= fold < (folds or 0)):
        raise ValueError(f"fold is {fold} of {folds} folds, expected one from 0 to folds - 1, or None for both")
    sections, patients = _read(dataset_dir, datalist, side, pairing, fractions, seed)
    if folds is not None:
        of_patient = split_folds(patients, folds, seed)
        training = sections["training"]
        sections["training"] = [image for image in training if of_patient[image["patient"][0]] != fold]
        sections["validation"] = [image for image in training if of_patient[image["patient"][0]] == fold]
    return _labelled(sections, dataset_dir)


def read_folds(
    dataset_dir: str | Path,
    datalist: str | Path | None = None,
    *,
    folds: int,
    pairing: str | None = None,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
) -> dict[str, int]:
    """Fold of each patient of training: the ``fold`` for which :func:`read_images` trains on all the others.

    The patients are those of either side, so that the networks of fixed and of moving images have the same folds.

    Args:
        dataset_dir: this and the other arguments as in :func:`read_images`.
        datalist: see there.
        folds: see there.
        pairing: see there.
        fractions: see there.
        seed: see there.

    Returns:
        Fold, from 0, by patient; the network of that fold has not seen the patient.
    """
    _, patients = _read(dataset_dir, datalist, None, pairing, fractions, seed)
    return split_folds(patients, folds, seed)


def _read(
    dataset_dir: str | Path,
    datalist: str | Path | None,
    side: str | None,
    pairing: str | None,
    fractions: Sequence[float],
    seed: int,
) -> tuple[Sections, set[str]]:
    """All images of each section, with and without labels; the patients of training, of either side."""
    if side not in (None, *SIDES):
        raise ValueError(f"side is {side!r}, expected {' or '.join(SIDES)}, or None for both")
    entries, problems, split = read_entries(dataset_dir, datalist, pairing or side or "paired", fractions, seed)
    if split and side and pairing in SIDES and pairing != side:
        raise ValueError(
            f"side is {side} and pairing is {pairing}, which forms pairs of {pairing} images only; expected the "
            f"pairing paired, or {side} too"
        )
    sides = SIDES if side is None else (side,)
    sections = {section: single_images(entries[section], problems, sides) for section in SECTIONS}
    refuse(problems, dataset_dir)
    return sections, {patient for entry in entries["training"] for patient in entry["patient"]}


def _labelled(sections: Sections, dataset_dir: str | Path) -> Sections:
    """The images that have a label."""
    kept = {section: [image for image in images if "label" in image] for section, images in sections.items()}
    found, labelled = (sum(map(len, images.values())) for images in (sections, kept))
    if not labelled:
        raise ValueError(f"none of the {found} images of {dataset_dir} has a label; add labels beside the images")
    if labelled < found:
        note = f"{found - labelled} of the {found} images of {dataset_dir} have no label and are left out"
        warnings.warn(note, DataWarning, stacklevel=3)
    return kept
