"""Simulated anatomy of the prostate, defined implicitly in world space: the rectum behind (-y), the apex below (-z).

Points are ``(3, ...)`` arrays, mm, RAS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STRUCTURES = ("gland", "apex", "base", "inner_1", "inner_2", "inner_3")
LANDMARK_RADIUS = 2.0  # mm
PROBE_AXIS = np.array([0.0, -32.0, 0.0])  # mm; the probe at rest is a cylinder along z through this point
PROBE_RADIUS, RECTAL_WALL = 10.0, 4.0  # mm


def as_column(vector: Sequence[float] | np.ndarray, points: np.ndarray) -> np.ndarray:
    """Vector as ``(n, 1, ...)``, to broadcast against points ``(n, ...)``."""
    return np.reshape(vector, (-1, *[1] * (points.ndim - 1)))


def scaled_distance(points: np.ndarray, centre: np.ndarray, radii: Sequence[float] | np.ndarray = (1.0,)) -> np.ndarray:
    """Distance of points from a centre in units of the radii, ``|(p - c) / r|``; ``(...)``."""
    return np.linalg.norm((points - as_column(centre, points)) / as_column(radii, points), axis=0)


def _blend(level: np.ndarray, inner: np.ndarray | float, distance: np.ndarray) -> np.ndarray:
    """``inner`` where ``distance`` (mm) is negative; the border is a voxel wide, like a partial-volume effect."""
    return level + (inner - level) * np.clip(0.5 - distance / 1.5, 0, 1)


def ridge(distance: np.ndarray, width: float) -> np.ndarray:
    """Gaussian of height 1 of the distance, with ``width`` its standard deviation; both in mm."""
    return np.exp(-((distance / width) ** 2) / 2)


@dataclass(frozen=True)
class Waves:
    """Smooth random function of unit variance: ``f(p) = sqrt(2/K) sum_k cos(w_k . p + phi_k)``."""

    vectors: np.ndarray
    phases: np.ndarray

    @classmethod
    def random(cls, rng: np.random.Generator, wavelengths: tuple[float, float], count: int = 12) -> Waves:
        """Draw ``count`` waves of random direction; ``wavelengths`` is their range, in the unit of the points."""
        directions = rng.normal(size=(count, 3))
        lengths = np.linalg.norm(directions, axis=1) * rng.uniform(*wavelengths, size=count)
        return cls(2 * np.pi * directions / lengths[:, None], rng.uniform(0, 2 * np.pi, size=count))

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Values, ``(...)``, at points ``(3, ...)``."""
        phases = np.tensordot(self.vectors, points, axes=1) + as_column(self.phases, points)
        return np.sqrt(2 / len(self.phases)) * np.cos(phases).sum(0)


@dataclass(frozen=True)
class Patient:
    """Anatomy of one patient, mm, RAS; the levels are echogenicities in [0, 1].

    In gland coordinates ``v`` - centred, unbent from around the rectum, in units of the radii - the gland is
    ``|v| <= 1 + 0.06 outline(v / |v|)``. The transition zone is an ellipsoid in these coordinates.
    """

    centre: np.ndarray
    radii: np.ndarray
    outline: Waves
    bend: float
    transition_centre: np.ndarray
    transition_radii: np.ndarray
    transition_level: float
    peripheral_level: float
    tissue_level: float
    texture: Waves
    nodules: Waves
    inner_sites: np.ndarray

    def gland_coordinates(self, points: np.ndarray) -> np.ndarray:
        """Gland coordinates ``v`` of points, ``(3, ...)``."""
        x, y, z = points - as_column(self.centre, points)
        return np.stack([x, y + self.bend * x**2, z]) / as_column(self.radii, points)

    def gland_distance(self, points: np.ndarray) -> np.ndarray:
        """Distance (mm, along the ray from the centre) to the gland's surface, negative inside; ``(...)``."""
        v = self.gland_coordinates(points)
        length = np.maximum(np.linalg.norm(v, axis=0), 1e-6)
        mm_per_unit = np.linalg.norm(v * as_column(self.radii, v), axis=0) / length
        return (length - 1 - 0.06 * self.outline(v / length)) * mm_per_unit

    def landmarks(self) -> np.ndarray:
        """Apex, base and the inner landmarks, mm, ``(5, 3)``."""
        poles = np.array([[0.0, 0.0, -1.0], [0.0, 0.0, 1.0]])
        poles *= 1 + 0.06 * self.outline(poles.T)[:, None]
        offset = np.concatenate([poles, self.inner_sites]) * self.radii
        offset[:, 1] -= self.bend * offset[:, 0] ** 2
        return self.centre + offset

    def labels(self, points: np.ndarray) -> np.ndarray:
        """Binary labels in the order of ``STRUCTURES``, uint8 ``(..., 6)``; a landmark is a ball."""
        balls = [scaled_distance(points, landmark) <= LANDMARK_RADIUS for landmark in self.landmarks()]
        return np.stack([self.gland_distance(points) <= 0, *balls], axis=-1).astype(np.uint8)

    def echogenicity(self, points: np.ndarray) -> np.ndarray:
        """Echo level of the tissue, positive, mostly below 1; ``(...)``."""
        v = self.gland_coordinates(points)
        texture = self.texture(points)
        _, base, *inner = self.landmarks()

        tissue = self.tissue_level + 0.09 * texture
        bladder = 17 * (scaled_distance(points, base + [0, 6, 17], [24, 17, 15]) - 1)
        tissue = _blend(tissue, 0.04, bladder)
        # The bright mucosa of the wall lies on the probe; the muscle around it is dark.
        wall = scaled_distance(points[:2], PROBE_AXIS[:2]) - PROBE_RADIUS
        tissue = _blend(_blend(tissue, 0.12, wall - RECTAL_WALL), 0.95, wall - 2)

        transition = 12 * (scaled_distance(v, self.transition_centre, self.transition_radii) - 1)
        gland = self.peripheral_level + 0.05 * texture
        gland = _blend(gland, self.transition_level + 0.08 * self.nodules(points), transition)
        gland = gland - 0.12 * ridge(transition, 1.0)
        urethra = np.hypot(v[0] * self.radii[0], v[1] * self.radii[1] - 3 + 5 * v[2] ** 2) - 2.5
        gland = _blend(gland, 0.06, urethra) + 0.15 * ridge(urethra - 1.5, 0.8)

        capsule = self.gland_distance(points)
        level = _blend(tissue, gland, capsule) + 0.3 * ridge(capsule, 1.2)
        # The inner landmarks are two calcifications and a cyst.
        for landmark, echo in zip(inner, (1.2, 1.2, 0.0), strict=True):
            level = _blend(level, echo, scaled_distance(points, landmark) - LANDMARK_RADIUS)
        return np.maximum(level, 0.02)


def simulate_patient(seed: int) -> Patient:
    """Draw the anatomy of a patient; the same seed gives the same patient."""
    rng = np.random.default_rng([0, seed])
    radii = rng.uniform([20, 15, 18], [28, 20, 24])
    outline = Waves.random(rng, (2.0, 4.0))
    # The gland lies on the rectal wall with a little fat between.
    posterior = PROBE_AXIS[1] + PROBE_RADIUS + RECTAL_WALL + rng.uniform(0.5, 6)
    to_centre = radii[1] * (1 + 0.06 * outline(np.array([0.0, -1.0, 0.0])))
    sites = np.array([[-0.5, -0.4, -0.25], [0.5, -0.1, 0.35], [-0.3, 0.5, 0.1]])
    return Patient(
        centre=np.array([rng.uniform(-7, 7), posterior + to_centre, rng.uniform(-6, 6)]),
        radii=radii,
        outline=outline,
        bend=rng.uniform(0.004, 0.014),
        transition_centre=rng.uniform([-0.06, 0.12, 0.05], [0.06, 0.25, 0.2]),
        transition_radii=rng.uniform([0.55, 0.5, 0.55], [0.75, 0.65, 0.75]),
        transition_level=rng.uniform(0.2, 0.32),
        peripheral_level=rng.uniform(0.35, 0.45),
        tissue_level=rng.uniform(0.62, 0.77),
        texture=Waves.random(rng, (12.0, 30.0)),
        nodules=Waves.random(rng, (7.0, 14.0)),
        inner_sites=sites + rng.uniform(-0.12, 0.12, size=(3, 3)),
    )
