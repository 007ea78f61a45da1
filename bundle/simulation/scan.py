"""Simulated 3D transrectal ultrasound (TRUS) of the prostate.

A scan sees the anatomy of a patient (``bundle.simulation.anatomy``) through a probe that pushes the tissue: the world
point ``p`` shows the anatomy at ``p + u(p)``. Every scan evaluates the anatomy at the positions of its own voxels. So
nothing is interpolated, and the displacement between two scans of a patient is known. Points are ``(3, ...)``
arrays, mm, RAS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from bundle.geometry import apply_affine, spacing_of, voxel_grid
from bundle.simulation.anatomy import PROBE_AXIS, PROBE_RADIUS, as_column, ridge, scaled_distance, simulate_patient

FAN_DEPTH, FAN_HALF_ANGLE, FAN_HALF_LENGTH = 54.0, np.deg2rad(72), 33.0  # mm from the probe's surface, radians, mm
FIELD_CENTRE, FIELD_OF_VIEW = np.array([0.0, 4.0, 0.0]), np.array([70.0, 60.0, 66.0])  # mm


@dataclass(frozen=True)
class Probe:
    """Pose of the probe in one scan, ``p -> R (p - o) + o + t`` about ``o = PROBE_AXIS``, and how tissue follows it.

    Tissue at the probe follows it rigidly, and tissue far away by the fraction ``FAR``; in between it is compressed.
    """

    FAR, REACH = 0.3, 28.0  # fraction, mm

    rotation: np.ndarray
    translation: np.ndarray

    def to_rest(self, points: np.ndarray) -> np.ndarray:
        """Inverse of the pose: where points fixed to the probe are when the probe is at rest; ``(3, ...)``, mm."""
        offset = points - as_column(PROBE_AXIS + self.translation, points)
        return np.tensordot(self.rotation.T, offset, axes=1) + as_column(PROBE_AXIS, points)

    def displacement(self, points: np.ndarray) -> np.ndarray:
        """``u(p) = w(p) (to_rest(p) - p)``: the world point ``p`` shows the anatomy at ``p + u(p)``; ``(3, ...)``, mm.

        The weight ``w`` falls from 1 on the axis of the probe at rest to ``FAR``, as a Gaussian of width ``REACH``.
        """
        near = ridge(scaled_distance(points[:2], PROBE_AXIS[:2]), self.REACH)
        return (self.FAR + (1 - self.FAR) * near) * (self.to_rest(points) - points)

    def to_world(self, anatomy: np.ndarray) -> np.ndarray:
        """Where the scan shows points of the anatomy: ``p`` with ``p + u(p) = q``; ``(3, ...)``, mm.

        ``u`` changes by less than 0.4 mm per mm, so the fixed-point iteration is exact to 1e-6 mm.
        """
        points = anatomy
        for _ in range(20):
            points = anatomy - self.displacement(points)
        return points


@dataclass(frozen=True)
class Scan:
    """A simulated volume: ``image`` uint8 ``(X, Y, Z)``, ``labels`` uint8 ``(X, Y, Z, 6)``, ``affine`` to mm, RAS."""

    patient_seed: int
    probe: Probe
    affine: np.ndarray
    image: np.ndarray
    labels: np.ndarray


def _oblique_grid(rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, ...]]:
    """Affine and shape of an oblique, anisotropic grid over the field of view; half of the grids are left-handed."""
    spacing = rng.permuted(rng.uniform([1.1, 1.25, 1.45], [1.2, 1.4, 1.6]))
    shape = np.ceil(FIELD_OF_VIEW / spacing).astype(int)
    axis = rng.normal(size=3)
    rotation = Rotation.from_rotvec(rng.uniform(5, 15) * axis / np.linalg.norm(axis), degrees=True)
    affine = np.eye(4)
    affine[:3, :3] = rotation.as_matrix() * spacing
    flipped = rng.integers(6)
    if flipped < 3:
        affine[:3, flipped] *= -1
    affine[:3, 3] = FIELD_CENTRE + rng.uniform(-2, 2, size=3) - affine[:3, :3] @ (shape - 1) / 2
    # NIfTI stores float32: rounding here makes the file's geometry equal the simulated one.
    return affine.astype(np.float32).astype(np.float64), tuple(int(size) for size in shape)


def _world(affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    return apply_affine(affine, voxel_grid(shape)).numpy()


def _speckle(rng: np.random.Generator, spacing: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Rayleigh speckle of mean 1 in the shape of ``depth`` (mm); its grain grows with depth (about 2 to 4 mm)."""
    noise = rng.normal(size=(2, 2, *depth.shape))
    fields = [gaussian_filter(noise[k], (0, *(sigma / spacing))) for k, sigma in enumerate((0.9, 1.8))]
    mixing = np.clip(depth / FAN_DEPTH, 0, 1) * np.pi / 2
    real, imaginary = np.cos(mixing) * fields[0] / fields[0].std() + np.sin(mixing) * fields[1] / fields[1].std()
    return np.hypot(real, imaginary) / np.sqrt(np.pi / 2)


def simulate_scan(patient_seed: int, scan_seed: int) -> Scan:
    """Simulate one TRUS volume of a patient.

    The brightness is ``gain * echogenicity * attenuation(depth) * sqrt(speckle)``, the root standing for the scanner's
    compression of the dynamic range; it is zero outside the probe's fan.

    Args:
        patient_seed: decides the anatomy.
        scan_seed: decides, with the patient, the grid, the probe's pose and the speckle.

    Raises:
        ValueError: for a negative seed.
    """
    if patient_seed < 0 or scan_seed < 0:
        raise ValueError(f"seeds are {patient_seed} and {scan_seed}; expected integers from 0")
    patient = simulate_patient(patient_seed)
    rng = np.random.default_rng([1, patient_seed, scan_seed])
    affine, shape = _oblique_grid(rng)
    probe = Probe(
        rotation=Rotation.from_euler("xyz", rng.uniform(-4, 4, size=3), degrees=True).as_matrix(),
        translation=rng.uniform([-4, -3, -3], [4, 6, 3]),
    )
    world = _world(affine, shape)
    anatomy = world + probe.displacement(world)

    x, y, z = probe.to_rest(world) - as_column(PROBE_AXIS, world)
    depth, angle = np.hypot(x, y) - PROBE_RADIUS, np.arctan2(x, y)
    fan = (depth >= 0) & (depth <= FAN_DEPTH) & (np.abs(angle) <= FAN_HALF_ANGLE) & (np.abs(z) <= FAN_HALF_LENGTH)
    attenuation = np.exp(-np.maximum(depth, 0) / rng.uniform(70, 110)) * np.cos(angle / 2)
    speckle = _speckle(rng, spacing_of(affine), depth)
    brightness = rng.uniform(0.95, 1.15) * patient.echogenicity(anatomy) * attenuation * np.sqrt(speckle)
    image = (255 * np.clip(brightness, 0, 1) * fan).round().astype(np.uint8)
    return Scan(patient_seed, probe, affine, image, patient.labels(anatomy))


def known_displacement(fixed: Scan, moving: Scan, points: np.ndarray | None = None) -> np.ndarray:
    """True displacement between two scans of one patient: the fixed point ``p`` comes from the moving ``p + d(p)``.

    Args:
        fixed: the fixed scan.
        moving: a scan of the same patient.
        points: ``(3, ...)``, mm, RAS, in the fixed scan's world; its voxels if not given.

    Returns:
        ``(3, ...)``, mm, RAS.

    Raises:
        ValueError: for scans of two patients, whose anatomies have no known correspondence.
    """
    if fixed.patient_seed != moving.patient_seed:
        raise ValueError(
            f"the scans are of patients {fixed.patient_seed} and {moving.patient_seed}; "
            "the displacement is known only between scans of one patient"
        )
    if points is None:
        points = _world(fixed.affine, fixed.image.shape)
    return moving.probe.to_world(points + fixed.probe.displacement(points)) - points
