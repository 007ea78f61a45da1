"""Pairs of slices with vessels, as retinal OCT angiography shows them, and points that are known to correspond."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

SIZE = 200
"""Pixels along an edge."""
VESSELS = ((14.0, 0.12), (5.0, 0.22))
"""Wide vessels and capillaries: pixels between them, and their width as a share of the noise."""
MOTION = (20.0, 2.5)
"""Standard deviations of the displacement between two scans: of its smoothing, and of its length in pixels."""
POINTS = 20


def simulate_slices(folder: Path, names: str = "abcdefgh", seed: int = 0) -> None:
    """Write ``fixed/``, ``moving/`` and ``landmarks/``: two scans of each eye.

    The fixed scan is the vessels, the moving one ``moving(q) = fixed(q + d(q))`` with a smooth random ``d``, each with
    speckle of its own, so that ``q`` in the moving scan shows what ``q + d(q)`` does in the fixed one.

    Args:
        folder: where to write them.
        names: names of the pairs, a letter each.
        seed: the same seed gives the same slices.
    """
    for part in ("fixed", "moving", "landmarks"):
        (folder / part).mkdir(parents=True)
    for number, name in enumerate(names):
        rng = np.random.default_rng([seed, number])
        vessels = _vessels(rng)
        displacement = np.stack([MOTION[1] * _noise(rng, MOTION[0]) for _ in range(2)])
        pixels = np.indices(vessels.shape)
        moved = map_coordinates(vessels, pixels + displacement, order=1, mode="nearest")
        for part, scan in (("fixed", vessels), ("moving", moved)):
            speckle = scan * rng.uniform(0.7, 1.3, scan.shape) + rng.uniform(0, 0.1, scan.shape)
            Image.fromarray(np.uint8(255 * np.clip(speckle, 0, 1))).save(folder / part / f"{name}.png")
        margin = SIZE // 6
        points = rng.integers(margin, SIZE - margin, (POINTS, 2))
        with (folder / f"landmarks/{name}.csv").open("w", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["fixed_row", "fixed_col", "moving_row", "moving_col"])
            for row, column in points:
                fixed = np.array([row, column]) + displacement[:, row, column]
                table.writerow([*np.round(fixed, 2), row, column])


def _noise(rng: np.random.Generator, distance: float) -> np.ndarray:
    """Smooth noise of mean 0 and standard deviation 1."""
    noise = gaussian_filter(rng.normal(size=(SIZE, SIZE)), distance, mode="wrap")
    return noise / noise.std()


def _vessels(rng: np.random.Generator) -> np.ndarray:
    """Curves where smooth noise passes zero, bright on a dark ground, in [0, 1]."""
    return np.max([np.exp(-((_noise(rng, distance) / width) ** 2)) for distance, width in VESSELS], axis=0)
