"""Text files in the encodings that people's editors write."""

from __future__ import annotations

import codecs
import json
import re
from typing import Any

BYTE_ORDER_MARK = "\ufeff"
MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")
"""What no text contains, and nearly all other files do."""


def decode(content: bytes) -> tuple[str, str]:
    """Text of a file: UTF-8, UTF-16 with its byte order mark (Notepad, PowerShell), else Windows-1252 (Excel).

    Args:
        content: content of the file.

    Returns:
        The text, with its byte order mark if there is one, and the encoding that gives back the same bytes.

    Raises:
        ValueError: when it is not text.
    """
    marked = [encoding for mark, encoding in MARKS if content.startswith(mark)]
    for encoding in marked or ["utf-8", "cp1252"]:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if CONTROL.search(text):
            break
        return text, encoding
    raise ValueError("not text in UTF-8, UTF-16 or Windows-1252")


def load_json(content: bytes, **options: Any) -> Any:
    """Read a JSON file; ``options`` are those of ``json.loads``.

    Raises:
        ValueError: when it is not text, or not JSON.
        RecursionError: when it is nested too deeply.
    """
    return json.loads(decode(content)[0].removeprefix(BYTE_ORDER_MARK), **options)
