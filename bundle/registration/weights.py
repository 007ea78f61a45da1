"""Weights of a network from a file."""

from __future__ import annotations

import copy
import filecmp
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from ignite.engine import Engine
from monai.handlers import CheckpointLoader
from torch import nn

from bundle.system import brief, exists, fingerprint, regular_file

SHARED_FILES = 2
"""How many files' weights are kept for the next network; older ones live as long as the networks that hold them."""

_loading = threading.Lock()
_shared: dict[tuple[str, int, int, str], dict[str, torch.Tensor]] = {}


class WeightsLoader(CheckpointLoader):
    """``CheckpointLoader``, with the same arguments, whose errors name the file and what to do."""

    def __call__(self, engine: Engine) -> None:
        """Load the weights.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when it holds no weights, weights of another network, or anything else: no code of the file
                runs.
        """
        with named_errors(self.load_path):
            self._load(engine)

    def _load(self, engine: Engine) -> None:
        check_archive(regular_file(self.load_path))
        super().__call__(engine)


@contextmanager
def named_errors(path: str) -> Iterator[None]:
    """Make errors while a file of weights is read say which file it is and what to do."""
    if not exists(path):
        raise FileNotFoundError(f"weights not found: {path}; give a file of weights, such as model.pt")
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder, expected a file of weights; give {Path(path, 'model.pt')}")
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):  # says nothing of the file
        raise
    except Exception as error:  # the file's content decides: UnpicklingError, AttributeError, OSError ...
        raise ValueError(
            f"{path} does not hold weights of this network ({brief(error)}); "
            "give the options and overlays (channels, network_def) of the run that made it"
        ) from error


@contextmanager
def weights_of(path: str) -> Iterator[dict[str, torch.Tensor]]:
    """The flat weights of a file, on the CPU, for a body that loads them into a network.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it holds no weights, or the body finds them to be those of another network.
    """
    with named_errors(path):
        check_archive(regular_file(path))
        yield dict(torch.load(path, map_location="cpu", weights_only=True))


def read_weights(path: str, network: nn.Module) -> None:
    """Load the flat weights of a file into a network; errors as in ``weights_of``."""
    with weights_of(path) as state:
        network.load_state_dict(state)


def fingerprint_of_weights(path: str | None) -> str | None:
    """Fingerprint of a file of weights, or None without one; errors as in ``weights_of`` if it is missing."""
    if path is None:
        return None
    with named_errors(path):
        return fingerprint(regular_file(path).read_bytes())


def ships(path: str | None, bundle_root: str) -> bool:
    """Whether weights are of the bundle: the same bytes as a file in its ``models``, wherever the file lies."""
    known = Path(bundle_root, "models").glob("*.pt")
    return path is not None and Path(path).is_file() and any(filecmp.cmp(path, file, shallow=False) for file in known)


def fingerprint_of_network(network: nn.Module) -> str:
    """Fingerprint of everything that a network is, whatever its weights and buffers are."""
    blank = copy.deepcopy(network)
    with torch.no_grad():
        for tensor in (*blank.parameters(), *blank.buffers()):
            tensor.zero_()
    return fingerprint(blank)


class SharedWeightsLoader(WeightsLoader):
    """``WeightsLoader`` for networks that are never changed: networks of one file on one device share their tensors.

    So threads that register pairs at the same time need the memory of one network; ``adapt`` works on copies.
    """

    def _load(self, engine: Engine) -> None:
        (network,) = self.load_dict.values()
        state = Path(self.load_path).stat()
        file = (str(Path(self.load_path).resolve()), state.st_mtime_ns, state.st_size, str(self.map_location))
        with _loading:
            if file in _shared:
                network.load_state_dict(_shared[file], assign=True)
                return
            super()._load(engine)
            while len(_shared) >= SHARED_FILES:
                _shared.pop(next(iter(_shared)))
            _shared[file] = network.state_dict()


def check_archive(path: Path) -> None:
    """Refuse what ``torch.save`` does not write today: formats older than its archives, and compressed archives.

    Its archives are not compressed, so weights need no more memory than their file has bytes.

    Raises:
        ValueError: saying which.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError("not a file of torch.save, or one of before 2020")
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("a compressed archive, which torch.save does not write")
