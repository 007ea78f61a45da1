"""Whom a map network has learned from, recorded beside its weights, so that folds are checked and not just believed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bundle.system import fingerprint, written_whole

FILE = "patients_seen.json"


def write_seen(
    folder: str | os.PathLike[str],
    images: Iterable[Mapping[str, Any]],
    start_weights: str | os.PathLike[str] | None = None,
) -> None:
    """Record the patients that a map network learns from, with those of the network that it goes on from.

    Args:
        folder: where the training writes its weights; ``patients_seen.json`` holds fingerprints, no names.
        images: images of the training, each with its ``patient``.
        start_weights: file of the network that it goes on from; None for a new one.

    Raises:
        OSError: when the file cannot be written.
    """
    seen = {fingerprint(name) for image in images for name in image["patient"]}
    with written_whole(Path(folder) / FILE) as file:
        json.dump({"patients": sorted(seen | _seen(start_weights))}, file)


def check_unseen(weights: str | os.PathLike[str], patients: Iterable[str]) -> None:
    """Refuse a map network that has learned from patients whom its fold should have left out.

    Maps of images that the network was trained on are too good: a registration network that learns from them follows
    the errors of all others. Weights without a record, such as copies, are taken as they are.

    Args:
        weights: file of the map network.
        patients: patients that it must not have seen.

    Raises:
        ValueError: naming some of those that it has.
    """
    seen = _seen(weights)
    known = [name for name in patients if fingerprint(name) in seen]
    if known:
        names = ", ".join(known[:3]) + (", ..." if len(known) > 3 else "")
        raise ValueError(
            f"the map network {weights} has learned from {len(known)} patient(s) of the fold that it should not know "
            f"({names}); train it by maps.yaml with that fold, and the folds, seed, split, pairing and datalist of "
            "this training, or set map_folds to null if none of your patients was in its training"
        )


def _seen(weights: str | os.PathLike[str] | None) -> set[str]:
    """Fingerprints of the patients on record beside weights; empty if there is no record."""
    record = None if weights is None else Path(weights).with_name(FILE)
    return set(json.loads(record.read_text("utf-8"))["patients"]) if record and record.exists() else set()
