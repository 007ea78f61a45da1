"""Pictures of slices, contours and curves as SVG, each complete in itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import matplotlib
import numpy as np
from contourpy import contour_generator
from PIL import Image

from bundle.pages.markup import Markup
from bundle.pages.views import View

FIXED, MOVING, FOLDED = "#00e000", "#ff3030", "#ff00ff"
LETTER = 0.065
"""Height of a letter on a picture, of the picture's longer side."""
CURVE = (420, 200, 64, 34)
"""Width, height, left and lower margin of a curve in units of its picture."""


def picture(plane: np.ndarray, colours: str = "gray", low: float = 0.0, high: float = 1.0) -> str:
    """A slice as the address of a PNG that it holds itself.

    Args:
        plane: ``(rows, columns)``.
        colours: name of a colour map.
        low: value of its first colour.
        high: value of its last colour.
    """
    index = np.clip((plane - low) / ((high - low) or 1.0), 0, 1) * 255
    image = Image.fromarray(np.rint(index).astype(np.uint8))
    if colours != "gray":
        palette = (matplotlib.colormaps[colours](np.arange(256))[:, :3] * 255).astype(np.uint8)
        image.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def panel(view: View, image: str, alt: str, overlays: Sequence[str] = ()) -> Markup:
    """A slice in millimetres with what is drawn on it.

    Args:
        view: of the slice.
        image: address of its picture.
        alt: what it shows, for who cannot see it.
        overlays: SVG elements, in mm from the upper left corner.
    """
    width, height = view.size
    return Markup(
        f'<svg viewBox="0 0 {width:.2f} {height:.2f}" role="img" aria-label="{escape(alt)}">'
        f"<title>{escape(alt)}</title>"
        f'<image href="{image}" width="{width:.2f}" height="{height:.2f}" preserveAspectRatio="none"/>'
        f"{''.join(overlays)}{_letters(view)}</svg>"
    )


def _letters(view: View) -> str:
    if view.letters is None:
        return ""
    width, height = view.size
    high = LETTER * max(width, height)
    inside = 0.65 * high
    places = [(inside, height / 2), (width - inside, height / 2), (width / 2, inside), (width / 2, height - inside)]
    return "".join(
        f'<text class="letter" x="{x:.1f}" y="{y:.1f}" font-size="{high:.1f}" text-anchor="middle">{letter}</text>'
        for letter, (x, y) in zip(view.letters, places, strict=True)
    )


def outline(view: View, mask: np.ndarray, colour: str, filled: bool = False) -> str:
    """Contours of a mask in a slice.

    Args:
        view: of the slice.
        mask: ``(rows, columns)`` of its voxels.
        colour: of the lines.
        filled: whether the inside has the colour, too.
    """
    marks = np.pad(view.marks(mask), 1).astype(float)
    # Pixel centres lie half a pixel inside the picture, and one further out for the rim.
    across, down = (spacing * view.step for spacing in view.spacing)
    columns, rows = (
        (np.arange(size) - 0.5) * step for size, step in zip(marks.shape[::-1], (across, down), strict=True)
    )
    lines = [np.asarray(line) for line in contour_generator(x=columns, y=rows, z=marks).lines(0.5)]
    if not lines:
        return ""
    style = f'fill="{colour if filled else "none"}" fill-rule="evenodd" stroke="{colour}"'
    return f'<path class="line" {style} d="{"".join(_path(line) for line in lines)}"/>'


def _path(points: np.ndarray) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def deformed_grid(view: View, right: np.ndarray, down: np.ndarray, colour: str = "#ffd000") -> tuple[str, float]:
    """The straight lines of a grid on the fixed slice, drawn where their points come from: ``p + u(p)``, in the plane.

    Args:
        view: of the slice.
        right: component of ``u`` to the right, ``(rows, columns)``, mm.
        down: component of ``u`` downwards.
        colour: of the lines.

    Returns:
        SVG element, and the distance of the lines in mm.
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
    return f'<path class="grid" fill="none" stroke="{colour}" d="{"".join(map(_path, lines))}"/>', distance


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
    strip = picture(np.linspace(0, 1, 256)[None], colours)
    ticks = "".join(
        f'<text x="{x}" y="42" text-anchor="{anchor}">{value:.3g}</text>'
        for x, anchor, value in ((0, "start", low), (130, "middle", (low + high) / 2), (260, "end", high))
    )
    return Markup(
        f'<svg class="bar" viewBox="0 0 260 46" role="img" aria-label="{escape(title)}: {low:.3g} to {high:.3g}">'
        f'<text x="0" y="11">{escape(title)}</text>'
        f'<image href="{strip}" y="16" width="260" height="12" preserveAspectRatio="none"/>{ticks}</svg>'
    )


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
    ticks = "".join(
        f'<text x="{left + step * across:.1f}" y="{height - 18}" text-anchor="middle">{step}</text>'
        for step in range(0, len(losses), every)
    )
    levels = "".join(
        f'<line class="level" x1="{left}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>'
        for value, y in (
            (value, (high - value) / (high - low) * (height - below)) for value in (min(losses), max(losses))
        )
    )
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points) if len(points) <= 60 else ""
    alt = f"loss over {len(losses) - 1} steps, from {losses[0]:.4g} to {losses[-1]:.4g}"
    return Markup(
        f'<svg class="curve" viewBox="0 0 {width} {height}" role="img" aria-label="{alt}">{levels}'
        f'<path fill="none" d="{_path(np.array(points))}"/>{dots}{ticks}'
        f'<text x="{(left + width) / 2}" y="{height - 2}" text-anchor="middle">gradient steps</text></svg>'
    )


def scaled(image: np.ndarray, like: np.ndarray) -> np.ndarray:
    """An image from 0 to 1, the 0.5th and 99.5th percentile of another one."""
    low, high = np.percentile(like, (0.5, 99.5))
    return np.clip((image - low) / (high - low or 1.0), 0, 1)
