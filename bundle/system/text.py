"""Text as people write it: files in any encoding, lists of names, and names in configurations."""

from __future__ import annotations

import argparse
import codecs
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence, Sized
from difflib import get_close_matches
from typing import Any

from bundle.system.limits import Refused, exists

BYTE_ORDER_MARK = "\ufeff"
MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
WIDE = {re.compile(rb"(?:[\t-~]\0){2}"): "utf-16-le", re.compile(rb"(?:\0[\t-~]){2}"): "utf-16-be"}
"""Beginnings of UTF-16 without its mark: every second byte of the first letters is 0."""
BRACKETS = re.compile(r"\[(.*)\]|\((.*)\)", re.DOTALL)
TRUTH = {"true": True, "false": False}
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")
"""What no text contains, and nearly all other files do."""
PATHS = re.compile(r"\w*(_dir|weights|datalist|_root|_file)")
"""Names of the options that are files and folders."""


def decode(content: bytes) -> tuple[str, str]:
    """Text of a file: UTF-8, UTF-16 with its byte order mark or not (Notepad, PowerShell), else Windows-1252 (Excel).

    Args:
        content: content of the file.

    Returns:
        The text, with its byte order mark if there is one, and the encoding that gives back the same bytes.

    Raises:
        ValueError: when it is not text.
    """
    marked = [encoding for mark, encoding in MARKS if content.startswith(mark)]
    marked = marked or [encoding for start, encoding in WIDE.items() if start.match(content)]
    for encoding in marked or ["utf-8", "cp1252"]:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if CONTROL.search(text):
            break
        return text, encoding
    raise ValueError("not text in UTF-8, UTF-16 or Windows-1252")


def load_json(content: bytes) -> Any:
    """Read a JSON file.

    Raises:
        Refused: when an object has a name twice: some readers take the first value, others the last.
        ValueError: when it is not text, or not JSON.
        RecursionError: when it is nested too deeply.
    """
    return json.loads(decode(content)[0].removeprefix(BYTE_ORDER_MARK), object_pairs_hook=distinct)


def distinct(items: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """A mapping of names that all differ.

    Raises:
        Refused: naming one that stands twice.
    """
    items = list(items)
    counts = Counter(name for name, _ in items)
    twice = next((name for name, count in counts.items() if count > 1), None)
    if twice is not None:
        raise Refused(f"names {twice!r} twice; keep one of them")
    return dict(items)


def several(words: str | Sequence[str]) -> list[str]:
    """Split names that are given as separate words, with commas, or in brackets as in MONAI.

    A name that contains a comma or brackets stays one name if there is such a file.
    """
    found = []
    for word in [words] if isinstance(words, str) else words:
        inside = BRACKETS.fullmatch(word)
        if exists(word):
            found.append(word)
        else:
            parts = (next(filter(None, inside.groups()), "") if inside else word).split(",")
            found += [part.strip().strip("'\"") if inside else part.strip() for part in parts]
    return [name for name in found if name]


def did_you_mean(words: Iterable[str], known: Collection[str], prefix: str = "") -> str:
    """End of a message about unknown words: the known ones that look most like them, if any do.

    Args:
        words: the unknown words.
        known: the words that there are.
        prefix: put before each.
    """
    near = dict.fromkeys(prefix + close for word in words for close in get_close_matches(word, known, 1))
    return f"; did you mean {' or '.join(near)}?" if near else ""


def and_more(items: Sized) -> str:
    """What follows the first of several that a line is about: how many more there are; nothing after the only one."""
    return f" and {len(items) - 1} more" if len(items) > 1 else ""


def not_empty(word: str) -> str:
    """A word as it is.

    Raises:
        argparse.ArgumentTypeError: when it is empty.
    """
    if not word:
        raise argparse.ArgumentTypeError("expected a name or a value, not nothing")
    return word


def whole_number(word: str) -> int:
    """A word as a number; errors as for ``not_empty``."""
    try:
        return int(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number, not {word!r}") from None


def truth(word: str) -> bool:
    """``True`` or ``False``; errors as for ``not_empty``."""
    if word.lower() not in TRUTH:
        raise argparse.ArgumentTypeError(f"expected True or False, not {word!r}")
    return TRUTH[word.lower()]


def truth_or_text(word: str) -> bool | str:
    """``True``, ``False``, or another word as it is."""
    return TRUTH.get(word.lower(), word)


def is_language(value: Any) -> bool:
    """Whether a value is an expression, a reference or a macro of MONAI's configuration language."""
    return isinstance(value, str) and value.startswith(("$", "@", "%"))


def is_path(name: str) -> bool:
    """Whether the values of an option are names of files or folders."""
    return PATHS.fullmatch(name) is not None


def literal(name: str) -> str:
    """A name in a form that MONAI's configurations keep: they turn ``#`` into ``::``, and ``$`` begins an expression.

    Args:
        name: name of a file or folder, or made of one.

    Returns:
        The name or, where it would not stay as it is, an expression that gives it.
    """
    if not is_language(name) and "#" not in name:
        return name
    return "$'" + "".join(letter if letter.isalnum() else f"\\U{ord(letter):08x}" for letter in name) + "'"
