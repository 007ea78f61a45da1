"""Weights of map networks lie beside those of the registration network that was trained with their maps."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

from bundle.system import fingerprint, moved_into_place
from bundle.system.fingerprints import content_of

MapWeights = Sequence[str] | Mapping[str, Sequence[str]]
OF_SIDES = ("", "_fixed", "_moving")
"""In the names of map networks of both kinds of images, or of one."""


def maps_beside(weights: str | os.PathLike[str] | None) -> MapWeights | None:
    """Files of the map networks that belong to weights: ``model_maps_0.pt``, ... beside ``model.pt``.

    For two kinds of images they are ``model_fixed_maps_0.pt``, ... and ``model_moving_maps_0.pt``, ...

    Args:
        weights: file of the registration network; None has no maps.

    Returns:
        The files as ``AnatomyMapsd`` takes them; None if there are none.
    """
    if weights is None:
        return None
    path = Path(weights)
    found = {side: _numbered(path, f"{path.stem}{side}_maps_") for side in OF_SIDES}
    if found["_fixed"] and found["_moving"]:
        return {"fixed": found["_fixed"], "moving": found["_moving"]}
    return found[""] or None


def _numbered(path: Path, prefix: str) -> list[str]:
    files = {file.stem.removeprefix(prefix): file for file in path.parent.glob("*.pt") if file.stem.startswith(prefix)}
    return [str(files[number]) for number in sorted(filter(str.isdigit, files), key=int)]


def fingerprint_beside(weights: str | os.PathLike[str]) -> str:
    """Fingerprint of weights together with the map networks and learned step sizes beside them.

    Args:
        weights: file of a registration network.

    Raises:
        OSError: when a file cannot be read.
    """
    path, maps = Path(weights), maps_beside(weights) or []
    steps = path.with_name(f"{path.stem}_step_sizes.pt")
    files = [path, *[steps] * steps.exists(), *map(Path, chain(*maps.values()) if isinstance(maps, Mapping) else maps)]
    return fingerprint([(file.stem.removeprefix(path.stem), content_of(file)) for file in files])


def copy_beside(maps: MapWeights | None, *weights: str | os.PathLike[str]) -> None:
    """Copy map networks beside weights, under the names that ``maps_beside`` finds; others there are removed.

    Args:
        maps: files of map networks; None leaves none beside the weights.
        weights: files of registration networks, which need not exist yet.

    Raises:
        OSError: when a file cannot be read or written.
    """
    of_side = maps if isinstance(maps, Mapping) else {"": maps or []}
    for path in map(Path, weights):
        copies = {
            path.with_name(f"{path.stem}{f'_{side}' if side else ''}_maps_{number}.pt"): Path(file)
            for side, files in of_side.items()
            for number, file in enumerate(files)
        }
        with ExitStack() as together:  # one may be the source of another, which must not be replaced before it is read
            for copy, file in copies.items():
                shutil.copyfile(file, together.enter_context(moved_into_place(copy)))
        belonging = {file.resolve() for names in copies.items() for file in names}
        for older in (Path(file) for side in OF_SIDES for file in _numbered(path, f"{path.stem}{side}_maps_")):
            if older.resolve() not in belonging:
                older.unlink()


def copy_weights(weights: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copy weights, and the map networks and learned step sizes beside them; others beside the copy are removed.

    Args:
        weights: file of a registration network.
        target: name of the copy; the files that belong to it are named after it.

    Raises:
        OSError: when a file cannot be read or written.
    """
    # If the weights exist they must be complete, so the files that belong to them come first.
    copy_beside(maps_beside(weights), target)
    for kind in ("_step_sizes", ""):
        source, copy = (Path(path).with_name(f"{Path(path).stem}{kind}.pt") for path in (weights, target))
        if kind and not source.exists():
            copy.unlink(missing_ok=True)
            continue
        with moved_into_place(copy) as partial:
            shutil.copyfile(source, partial)
