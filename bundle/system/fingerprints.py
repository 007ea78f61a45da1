"""What a result depends on: leaf by leaf, to say what changed, or as a short text.

Numbers and texts are compared by value, arrays and weights by content, functions by code, other objects by their class
and attributes, or by their text if they have none. The order of mappings and sets, the state of random generators, and
of an object its device and what its ``does_not_count`` names do not count.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from enum import Enum
from functools import lru_cache, partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

from bundle.system.limits import exists

PLAIN = (str, bytes, int, float, complex, type(None), Path, Enum, torch.dtype, torch.device, np.dtype, np.generic)
NOT_A_VALUE = (np.random.Generator, np.random.RandomState, Iterator)
"""Objects whose text would be their state, or an address."""
ADDRESS = re.compile("0x[0-9a-f]{6,}", re.IGNORECASE)
HALVES = re.compile(r"\.(?:hdr|img)(?:\.gz)?$", re.IGNORECASE)
"""Suffixes of an image in two files, one with the header, the other with the voxels."""
FILES = ("image", "label", "mask", "landmarks")
"""How those keys of a pair end that name files; the name of a pair, a patient or a task may be that of any folder."""
NAMING = (".mhd", ".mha", ".nhdr", ".nrrd")
"""Suffixes of images whose headers may name other files, which hold the voxels."""
LONGEST_TEXT = 2**16
"""Bytes of a file that are taken for its header."""


def described(**values: Any) -> dict[str, str]:
    """Everything that values consist of, including objects of a configuration.

    Returns:
        Path of each leaf, such as ``preprocessing.transforms.3.keys.0`` -> text that represents its value.
    """
    seen: dict[int, Any] = {}
    return {path: text for name, value in values.items() for path, text in _leaves(value, name, seen)}


def fingerprint(*values: Any) -> str:
    """16 hexadecimal digits that represent values: two runs with the same digits depend on the same things."""
    leaves = sorted(described(**{str(number): value for number, value in enumerate(values)}).items())
    return hashlib.sha256(repr(leaves).encode()).hexdigest()[:16]


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What differs between two descriptions, in words: ``pixdim was 0.8, is 1.0``."""
    paths = sorted({*before, *now}, key=lambda path: (path.count("."), path))
    texts = [(path, *(_shown(leaves.get(path)) for leaves in (before, now))) for path in paths]
    return [f"{path} was {old}, is {new}" for path, old, new in texts if before.get(path) != now.get(path)]


def content_of(path: Path) -> str:
    """What is in a file, as a short text: a copy has the same."""
    found = path.stat()
    return _content(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=4096)
def _content(path: Path, size: int, time: int) -> str:
    """The same, read once: an image belongs to several pairs."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_of(path: Path) -> int:
    """Bytes of a file."""
    return path.stat().st_size


def stamp_of(path: Path) -> tuple[int, int]:
    """Bytes of a file and when it was written, for a look at many files many times; a copy may have another time."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def sources(pair: Mapping[str, Any], known_by: Callable[[Path], Any] = content_of) -> list[list[Any]]:
    """The entry of a pair, with what every file is known by that it names, and every file in a folder it names.

    The voxels of an image may be in another file than its header, which counts too. Where a file lies counts unless it
    is known by its content.

    Args:
        pair: the entry.
        known_by: ``content_of``, ``size_of`` or ``stamp_of``.
    """
    found = []
    for key, value in sorted(pair.items()):
        path = Path(value) if isinstance(value, str) and key.endswith(FILES) else None
        files = [] if path is None else _below(path) if path.is_dir() else _image_files(path) if path.is_file() else []
        place = None if files and known_by is content_of else value
        found.append([key, place, [(file.name, known_by(file)) for file in files]])
    return found


def programs_of(command: str | Sequence[str]) -> list[str]:
    """Contents of the files that a command, a list or a line as in a shell, names: program, scripts, parameters."""
    program, *arguments = (shlex.split(command) if isinstance(command, str) else map(str, command)) or [""]
    parts = (part for word in arguments for part in dict.fromkeys((word, *re.split(r"[\s=;]", word))))
    paths = [Path(part) for part in (shutil.which(program), *parts) if part and exists(part)]
    return [content_of(path) for path in paths if path.is_file()]


def _image_files(path: Path) -> list[Path]:
    """A file, and those beside it that belong to the same image."""
    if HALVES.search(path.name):
        beginning = HALVES.sub("", path.name)
        return sorted(one for one in path.parent.iterdir() if HALVES.sub("", one.name) == beginning != one.name)
    if not path.name.lower().endswith(NAMING):
        return [path]
    with path.open("rb") as file:
        lines = file.read(LONGEST_TEXT).partition(b"\n\n")[0].decode("latin-1").splitlines()
    named: set[Path] = set()
    for name in (part.strip() for line in lines for part in (line, *re.split("[=:]", line)[1:])):
        if re.search("%0?\\d*d", name):
            named |= set(path.parent.glob(re.sub("%0?\\d*d", "*", name.split()[0])))
        elif name and exists(path.parent / name):
            named.add(path.parent / name)
    return [path, *sorted(one for one in named if one.is_file())]


def _below(folder: Path) -> list[Path]:
    """Files below a folder. Links to folders are followed, except those that lead back."""
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in sorted(folders) if Path(place, name).resolve() not in seen]
        seen |= {Path(place, name).resolve() for name in folders}
        found += [path for path in (Path(place, name) for name in sorted(names)) if path.is_file()]
    return found


def fingerprint_of_list(pairs: Sequence[Mapping[str, Any]]) -> str:
    """Fingerprint of a list of pairs or images, with the sizes of their files."""
    return fingerprint(*(sources(pair, size_of) for pair in pairs))


def hash_of_files(pair: Mapping[str, Any]) -> bytes:
    """Name of a pair in MONAI's ``PersistentDataset``; it changes if one of the pair's files changes."""
    return fingerprint(sources(pair, stamp_of)).encode()


def hash_of_transforms(transforms: Sequence[Any]) -> bytes:
    """Name of transforms in MONAI's ``PersistentDataset``."""
    return fingerprint(list(transforms)).encode()


def _shown(text: str | None) -> str:
    """The value of a leaf without its type."""
    return "None" if text is None else text.partition(" ")[2] or text


def _leaves(value: Any, path: str, seen: dict[int, Any]) -> Iterator[tuple[str, str]]:
    if isinstance(value, PLAIN):
        yield path, f"{type(value).__name__} {value!r}"
    elif isinstance(value, type | ModuleType | logging.Logger):
        yield path, f"{getattr(value, '__module__', '')} {getattr(value, '__qualname__', value)}"
    elif id(value) in seen:
        yield path, f"again {seen[id(value)][0]}"
    else:
        # Keep the value with its name: the next object could get the address of one that was deleted.
        seen[id(value)] = (path, value)
        yield path, f"a {type(value).__qualname__}"
        for name, part in _parts(value):
            yield from _leaves(part, f"{path}.{name}", seen)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """The named parts of an object."""
    if isinstance(value, torch.Tensor):
        content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        yield from {"dtype": value.dtype, "shape": str(list(value.shape)), "content": _digest(content)}.items()
    elif isinstance(value, np.ndarray):
        yield from {"dtype": value.dtype, "shape": str(list(value.shape)), "content": _digest(value)}.items()
    elif isinstance(value, Mapping):
        yield from ((str(key), item) for key, item in value.items())
    elif isinstance(value, Set):
        yield from ((text, None) for text in sorted(map(repr, value)))
    elif isinstance(value, Sequence):
        yield from ((str(number), item) for number, item in enumerate(value))
    elif isinstance(value, partial):
        yield from {"func": value.func, "args": value.args, "keywords": value.keywords}.items()
    elif isinstance(value, MethodType):
        yield from {"function": value.__func__, "self": value.__self__}.items()
    elif isinstance(value, FunctionType):
        closure = [cell.cell_contents for cell in value.__closure__ or ()]
        yield "name", value.__qualname__
        yield from _parts(value.__code__)
        yield from {"defaults": value.__defaults__, "keywords": value.__kwdefaults__, "closure": closure}.items()
    elif isinstance(value, CodeType):
        yield from {"code": value.co_code, "names": value.co_names}.items()
        yield "constants", [_constant(constant) for constant in value.co_consts]
    elif isinstance(value, BuiltinFunctionType):
        yield from {"name": value.__qualname__, "self": value.__self__}.items()
    elif isinstance(value, NOT_A_VALUE):
        return
    elif hasattr(value, "__dict__"):
        no_part = getattr(type(value), "does_not_count", ())  # an object may make up any attribute
        for name, part in vars(value).items():
            if name not in no_part and not isinstance(part, torch.device):
                yield name, part
    elif not ADDRESS.search(text := repr(value)):
        yield "value", text


def _constant(value: Any) -> Any:
    """A constant of a function: code and plain values as they are, others as text.

    Equal tuples are one object or several, by whether Python has read or compiled the code.
    """
    if isinstance(value, (*PLAIN, CodeType)):
        return value
    return repr(sorted(map(repr, value)) if isinstance(value, Set) else value)


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()
