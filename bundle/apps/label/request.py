"""What a client may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bundle.apps.label.errors import ClientError

WARPED, LABEL, DISPLACEMENT = OUTPUTS = ("warped", "label", "displacement")
MAX_STEPS = 500
"""Most gradient steps of one request; more would keep all other clients waiting."""
VOLUMES = (".nii.gz", ".nii", ".nrrd", ".mha")
SEGMENTATION = ".seg.nrrd"
FINAL = "final"
"""MONAI Label's tag for labels that a person has saved."""
MAPS = "maps"
"""In place of a tag: no label is carried, the map networks propose one of the fixed image."""


@dataclass(frozen=True)
class Wanted:
    """A registration that a client asks for.

    Attributes:
        fixed: id of the image whose geometry the result has, or of an upload.
        moving: id of the image that is warped; empty for the one proposed with the fixed image.
        steps: gradient steps.
        output: one of ``OUTPUTS``.
        label: tag of the moving image's label that is carried over, or ``MAPS``.
        suffix: suffix of the result's file.
    """

    fixed: str
    moving: str
    steps: int
    output: str
    label: str
    suffix: str

    @property
    def proposal(self) -> bool:
        """Whether a label is to be proposed rather than carried."""
        return self.output == LABEL and self.label == MAPS

    @classmethod
    def read(cls, request: Mapping[str, Any], defaults: Mapping[str, Any]) -> Wanted:
        """Read the parameters of a request.

        Viewers ask for every result as ``.nrrd`` of ``uint8``. A label is given so; a warped image keeps its numbers in
        any requested format, and a displacement is always NIfTI, as the bundle writes it.

        Args:
            request: parameters; those for others, such as ``result_dtype``, are ignored.
            defaults: values of missing parameters. In a list, the first item is the default, the rest are choices.

        Raises:
            ClientError: saying which parameter is wrong.
        """
        values = {name: request.get(name, default) for name, default in defaults.items()}
        # A viewer that shows choices may send all of them, with the chosen one first.
        chosen = {name: value[0] if isinstance(value, list) and value else value for name, value in values.items()}
        output = chosen["output"]
        if output not in _choices(defaults["output"]):
            raise ClientError(f"output is {output!r}; expected one of {', '.join(_choices(defaults['output']))}")
        return cls(
            fixed=_text("image", request.get("image")),
            moving=_text("moving", chosen["moving"]),
            steps=_whole("steps", chosen["steps"], MAX_STEPS),
            output=output,
            label=_text("label", chosen["label"]),
            suffix=_suffix(request.get("result_extension") or ".nii.gz", output),
        )


def _choices(default: str | list[str]) -> list[str]:
    return default if isinstance(default, list) else [default]


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ClientError(f"{name} is a {type(value).__name__}; expected a text")
    return value


def _whole(name: str, value: Any, most: int) -> int:
    try:
        number = int(str(value))
    except ValueError:
        number = -1
    if isinstance(value, bool) or not 0 <= number <= most:
        raise ClientError(f"{name} is {value!r}; expected a whole number from 0 to {most}")
    return number


def _suffix(asked: Any, output: str) -> str:
    known = (*VOLUMES, SEGMENTATION)
    if asked not in known:
        raise ClientError(f"result_extension is {asked!r}; expected one of {', '.join(known)}")
    if output == DISPLACEMENT:
        return ".nii.gz"
    return ".nrrd" if asked == SEGMENTATION and output == WARPED else asked
