"""What a result depends on, as a short text: two runs with the same text give the same result."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence, Set
from enum import Enum
from functools import partial
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

PLAIN = (str, bytes, int, float, complex, type(None), Path, Enum, torch.dtype, torch.device, np.dtype, np.generic)


def fingerprint(*values: Any) -> str:
    """16 hexadecimal digits that stand for values, objects of a configuration among them.

    Numbers and texts count by value, arrays and weights by content, functions by code, other objects by their class
    and attributes. The order of mappings and sets does not count, nor does the state of random generators.
    """
    text = json.dumps(_described(values, {}))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _described(value: Any, seen: dict[int, Any]) -> Any:
    if isinstance(value, PLAIN):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, type | ModuleType | logging.Logger):
        return f"{getattr(value, '__module__', '')} {getattr(value, '__qualname__', value)}"
    if id(value) in seen:
        return f"again {seen[id(value)][0]}"
    # The value is kept with its number: the next object could get the address of one that is gone.
    seen[id(value)] = (len(seen), value)
    return [type(value).__qualname__, _parts(value, seen)]


def _parts(value: Any, seen: dict[int, Any]) -> Any:
    """What an object consists of."""

    def each(items: Any) -> list[Any]:
        return [_described(item, seen) for item in items]

    if isinstance(value, torch.Tensor):
        return each(
            [value.dtype, tuple(value.shape), value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()]
        )
    if isinstance(value, np.ndarray):
        return [str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    if isinstance(value, Mapping):
        return sorted(([str(key), _described(item, seen)] for key, item in value.items()), key=lambda part: part[0])
    if isinstance(value, Set):
        return sorted(map(repr, value))
    if isinstance(value, Sequence):
        return each(value)
    if isinstance(value, partial):
        return each((value.func, value.args, value.keywords))
    if isinstance(value, MethodType):
        return each((value.__func__, value.__self__))
    if isinstance(value, FunctionType):
        code, closure = value.__code__, [cell.cell_contents for cell in value.__closure__ or ()]
        constants = [constant for constant in code.co_consts if isinstance(constant, PLAIN)]
        return each([value.__qualname__, code.co_code, code.co_names, constants, value.__defaults__, closure])
    if isinstance(value, np.random.RandomState | np.random.Generator | torch.Generator):
        return None
    return each([vars(value)] if hasattr(value, "__dict__") else [])
