"""Which pairs of a run are finished, and whose results lie in a folder."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from bundle.data import default_names
from bundle.system import DataWarning, fingerprint, remove_leftovers, sources
from bundle.system.files import RECORD

IMAGES = ("fixed_image", "moving_image")
KNOWN_BY = ("images_at", "images")
"""What a record knows the images of a pair by: where they lie, and what is in them; it reveals neither."""


class FinishedPairs:
    """Evaluation handler that tells a ``PairDataset`` with which settings its pairs are registered.

    The data set then skips pairs that are there from the same files with the same settings. This handler comes after
    the one that loads the weights, since their content is one of the settings.

    Args:
        dataset: a ``PairDataset``.
        depends_on: everything that a result depends on, such as the network and the transforms.
    """

    def __init__(self, dataset: Any, depends_on: Sequence[Any]) -> None:
        self.dataset = dataset
        self.depends_on = depends_on

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)

    def _start(self, engine: Engine) -> None:
        self.dataset.settings = fingerprint(*self.depends_on)
        for pair in self.dataset.data:
            remove_leftovers(Path(self.dataset.output_dir, pair["pair_id"]))


def write_record(folder: Path, data: Mapping[Any, Any]) -> None:
    """Write down what a pair's results were made of, beside them.

    Args:
        folder: folder of the pair, with everything else in it.
        data: ``images_at`` and ``images``; ``fingerprint``, if the pair need not be done again; and what the page over
            all pairs shows.
    """
    shown = {key: data[key] for key in ("thumbnail",) if key in data}
    record = {"made_of": data.get("fingerprint"), **{key: data[key] for key in KNOWN_BY}}
    (folder / RECORD).write_text(json.dumps({**record, "files": _lengths(folder), "shown": shown}) + "\n")


def is_finished(folder: Path, made_of: str) -> bool:
    """Whether a folder holds all results of a pair, none cut short, made of the same files with the same settings."""
    record = _record(folder)
    files = record.get("files")  # of an earlier version, their names alone: it is done once more
    whole = isinstance(files, dict) and files.items() <= _lengths(folder).items()
    return whole and record["made_of"] == made_of


def _lengths(folder: Path) -> dict[str, int]:
    """Bytes of every file beside the record in a folder, by its name; 0 for a folder."""
    files = (path for path in sorted(folder.iterdir()) if path.name != RECORD)
    return {path.name: 0 if path.is_dir() else path.stat().st_size for path in files}


def read_finished(folder: Path) -> dict[str, Any]:
    """What the evaluator would have given for a finished pair: its metrics, and what the page shows."""
    metrics = json.loads((folder / "metrics.json").read_text())
    return {"pair_id": metrics["pair_id"], "metrics": metrics, "finished": True, **_record(folder)["shown"]}


def _record(folder: Path) -> dict[str, Any]:
    """What ``write_record`` has written; empty if there is no such file, or another content."""
    try:
        record = json.loads((folder / RECORD).read_text())
        return {key: record[key] for key in ("made_of", *KNOWN_BY, "files", "shown")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def images_known_by(pair: Mapping[str, Any]) -> dict[str, str]:
    """Fingerprints of the paths and of the contents of the two images of a pair."""
    return dict(zip(KNOWN_BY, (_images_at(pair), _images(pair)), strict=True))


def _images_at(pair: Mapping[str, Any]) -> str:
    return fingerprint([os.path.realpath(pair[key]) for key in IMAGES])


def _images(pair: Mapping[str, Any]) -> str:
    return fingerprint(sources({key: pair[key] for key in IMAGES}))


def beside_others(pairs: Sequence[Mapping[str, Any]], output_dir: Path) -> list[Mapping[str, Any]]:
    """Pairs whose results replace no result of other images.

    Files of another patient may have the same names. Only a pair that is named after its files gets another name, by
    the folders of its images: who gave it a ``pair_id`` has said where its results go.

    Args:
        pairs: pairs with their names.
        output_dir: folder of the pairs' results.

    Returns:
        The pairs, some with another ``pair_id``.
    """
    named, taken = [], {pair["pair_id"].lower() for pair in pairs}
    for pair in pairs:
        if would_replace(pair, output_dir):
            name, longer = default_names(pair)
            numbered = (f"{longer}-{number}" for number in count(2))
            free = (other for other in chain([longer], numbered) if other.lower() not in taken)
            new = next(other for other in free if not _holds_others(output_dir / other, pair))
            message = f"{output_dir / name} holds the result of other images of these names; this pair is {new}"
            warnings.warn(message, DataWarning, stacklevel=3)
            taken.add(new.lower())
            pair = {**pair, "pair_id": new}
        named.append(pair)
    return named


def would_replace(pair: Mapping[str, Any], output_dir: Path) -> bool:
    """Whether a pair that is named after its files would replace the result of other images."""
    return pair["pair_id"] == default_names(pair)[0] and _holds_others(output_dir / pair["pair_id"], pair)


def _holds_others(folder: Path, pair: Mapping[str, Any]) -> bool:
    """Whether a folder holds the result of other images: in other places, and with other contents."""
    record = _record(folder)
    if not record:
        return False
    place, content = (record[key] for key in KNOWN_BY)
    try:
        return bool(place != _images_at(pair) and content != _images(pair))
    except OSError:  # an image that cannot be read is reported when it is the pair's turn
        return False
