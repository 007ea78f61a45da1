"""Pairs that an earlier run into the same folder has finished: the same command goes on behind them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from bundle.data import fingerprint

RECORD = "resume.json"
"""In the folder of a pair: what it was made of, the names of its files, what the page over all pairs shows."""


class FinishedPairs:
    """Evaluation handler that tells a ``PairDataset`` which settings its pairs are registered with.

    The dataset then leaves out what is there, from the same files with the same settings. It follows the handler that
    loads the weights, since their content is one of the settings.

    Args:
        dataset: a ``PairDataset``.
        depends_on: everything a result depends on, such as the network and the transforms.
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
            for path in temporary_folders(Path(self.dataset.output_dir), pair["pair_id"]):
                shutil.rmtree(path, ignore_errors=True)


def temporary_folders(output_dir: Path, pair_id: str) -> tuple[Path, Path]:
    """Where new results of a pair grow, and where old ones are deleted; a run that was killed may leave either."""
    return output_dir / f".{pair_id}.partial", output_dir / f".{pair_id}.old"


def sources(pair: Mapping[str, Any]) -> list[list[Any]]:
    """The entry of a pair, with size and time of every file that it names; of a folder, of the files in it."""
    found = []
    for key, value in sorted(pair.items()):
        path = Path(value) if isinstance(value, str) else None
        files = [] if path is None else sorted(path.rglob("*")) if path.is_dir() else [path] if path.is_file() else []
        stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        found.append([key, value, stats])
    return found


def write_record(folder: Path, made_of: str, **shown: Any) -> None:
    """Note what a pair's results were made of, beside them.

    Args:
        folder: of the pair, with everything else in it.
        made_of: fingerprint of files and settings.
        shown: what the page over all pairs shows, ready for JSON.
    """
    files = sorted(path.name for path in folder.iterdir())
    (folder / RECORD).write_text(json.dumps({"made_of": made_of, "files": files, "shown": shown}) + "\n")


def is_finished(folder: Path, made_of: str) -> bool:
    """Whether a folder holds all results of a pair, made of the same files with the same settings."""
    try:
        record = json.loads((folder / RECORD).read_text())
        return record["made_of"] == made_of and set(record["files"]) <= {path.name for path in folder.iterdir()}
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read_finished(folder: Path) -> dict[str, Any]:
    """What the evaluator would have found out about a finished pair: its metrics, and what the page shows."""
    metrics = json.loads((folder / "metrics.json").read_text())
    shown = json.loads((folder / RECORD).read_text())["shown"]
    return {"pair_id": metrics["pair_id"], "metrics": metrics, "finished": True, **shown}
