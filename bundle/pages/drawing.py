"""Pictures of slices, contours and curves as SVG; each is self-contained."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from contourpy import contour_generator
from markupsafe import Markup
from PIL import Image

from bundle.pages.markup import part
from bundle.pages.views import View

FIXED, MOVING, FOLDED, GRID = "#00e000", "#ff3030", "#ff00ff", "#ffd000"
LETTER = 0.065
"""Height of a letter on a picture, as a share of the picture's longer side."""
CURVE = (420, 200, 64, 34)
"""Width, height, left and lower margin of a curve in units of its picture."""


def picture(plane: np.ndarray, colours: str = "gray", low: float = 0.0, high: float = 1.0) -> str:
    """A slice as a data URL of a PNG.

    Args:
        plane: ``(rows, columns)``.
        colours: name of a colour map.
        low: value of the first colour.
        high: value of the last colour.
    """
    index = np.clip((plane - low) / ((high - low) or 1.0), 0, 1) * 255
    image = Image.fromarray(np.rint(index).astype(np.uint8))
    if colours != "gray":
        palette = (matplotlib.colormaps[colours](np.arange(256))[:, :3] * 255).astype(np.uint8)
        image.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def panel(view: View, image: str, alt: str, overlays: Sequence[Markup] = ()) -> Markup:
    """A slice in millimetres with what is drawn on it.

    Args:
        view: view of the slice.
        image: URL of its picture.
        alt: text that says what it shows.
        overlays: SVG elements, in mm from the upper left corner.
    """
    width, height = view.size
    high = LETTER * max(width, height)
    inside = 0.65 * high
    places = [(inside, height / 2), (width - inside, height / 2), (width / 2, inside), (width / 2, height - inside)]
    letters = [(letter, f"{x:.1f}", f"{y:.1f}") for letter, (x, y) in zip(view.letters or (), places, strict=False)]
    return part("panel", f"{width:.2f}", f"{height:.2f}", image, alt, overlays, letters, f"{high:.1f}")


def contours(view: View, mask: np.ndarray) -> list[np.ndarray]:
    """Border of a mask in a slice: lines of points ``(points, 2)`` in mm, to the right and downwards of its corner.

    Args:
        view: view of the slice.
        mask: ``(rows, columns)`` of its voxels.
    """
    marks = np.pad(view.marks(mask), 1).astype(float)
    # Pixel centres lie half a pixel inside the picture; the padded rim adds one pixel.
    across, down = (spacing * view.step for spacing in view.spacing)
    columns, rows = (
        (np.arange(size) - 0.5) * step for size, step in zip(marks.shape[::-1], (across, down), strict=True)
    )
    return [np.asarray(line) for line in contour_generator(x=columns, y=rows, z=marks).lines(0.5)]


def outline(view: View, mask: np.ndarray, colour: str, filled: bool = False) -> Markup:
    """Contours of a mask in a slice.

    Args:
        view: view of the slice.
        mask: ``(rows, columns)`` of its voxels.
        colour: colour of the lines.
        filled: whether the inside is coloured, too.
    """
    lines = contours(view, mask)
    if not lines:
        return Markup()
    return part("path", "line", "".join(map(_path, lines)), colour, colour if filled else "none")


def _path(points: np.ndarray) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def deformed_grid(view: View, right: np.ndarray, down: np.ndarray) -> tuple[Markup, float]:
    """The straight lines of a grid on the fixed slice, drawn where their points come from: ``p + u(p)``, in the plane.

    Args:
        view: view of the slice.
        right: component of ``u`` to the right, ``(rows, columns)``, mm.
        down: component of ``u`` downwards.

    Returns:
        SVG element, and the distance between the lines in mm.
    """
    right, down = view.pixels(right), view.pixels(down)
    across, along = (spacing * view.step for spacing in view.spacing)
    rows, columns = right.shape
    x, y = np.meshgrid((np.arange(columns) + 0.5) * across, (np.arange(rows) + 0.5) * along)
    points = np.stack([x + right, y + down], axis=-1)
    distance = _round_number(max(view.size) / 16)
    fine = max(1, max(rows, columns) // 80)
    lines = [points[row, ::fine] for row in _lines(rows, along, distance)]
    lines += [points[::fine, column] for column in _lines(columns, across, distance)]
    return part("path", "grid", "".join(map(_path, lines)), GRID), distance


def _lines(count: int, spacing: float, distance: float) -> np.ndarray:
    """Pixels nearest to multiples of the distance from the middle."""
    reach = int(count * spacing / 2 / distance)
    places = (count - 1) / 2 + np.arange(-reach, reach + 1) * distance / spacing
    return np.unique(np.rint(places).clip(0, count - 1).astype(int))


def _round_number(value: float) -> float:
    """The nearest of 1, 2, 5, 10, 20 ... and their tenths."""
    numbers = np.outer(10.0 ** np.arange(-3, 5), (1, 2, 5)).ravel()
    return float(numbers[np.abs(np.log(numbers / value)).argmin()])


def colour_bar(colours: str, low: float, high: float, title: str) -> Markup:
    """A scale with its first, middle and last value."""
    values = [f"{value:.3g}" for value in (low, (low + high) / 2, high)]
    return part("bar", title, picture(np.linspace(0, 1, 256)[None], colours), values)


def loss_curve(losses: Sequence[float]) -> Markup:
    """The loss before each step and after the last one.

    Args:
        losses: at least two.
    """
    width, height, left, below = CURVE
    low, high = min(losses), max(losses)
    margin = 0.08 * (high - low) or 1.0
    low, high = low - margin, high + margin
    across = (width - left - 12) / (len(losses) - 1)
    points = [
        (left + step * across, (high - loss) / (high - low) * (height - below)) for step, loss in enumerate(losses)
    ]
    every = max(1, round(_round_number((len(losses) - 1) / 5)))
    return part(
        "curve",
        f"loss over {len(losses) - 1} steps, from {losses[0]:.4g} to {losses[-1]:.4g}",
        (width, height),
        (left + width) / 2,
        [
            (left, round((high - value) / (high - low) * (height - below), 1), f"{value:.4g}")
            for value in (min(losses), max(losses))
        ],
        _path(np.array(points)),
        [(f"{x:.1f}", f"{y:.1f}") for x, y in points] if len(points) <= 60 else [],
        [(f"{left + step * across:.1f}", step) for step in range(0, len(losses), every)],
    )


def scaled(image: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Scale an image so that 0 and 1 are the 0.5th and 99.5th percentile of another one."""
    low, high = np.percentile(like, (0.5, 99.5))
    return np.clip((image - low) / (high - low or 1.0), 0, 1)
