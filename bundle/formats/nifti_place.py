"""NIfTI: the type of the voxels, and where they and displacements lie, decided once as in ITK, 3D Slicer and ANTs."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
from nibabel.nifti1 import data_type_codes as TYPES
from nibabel.quaternions import quat2mat

from bundle.formats.itk_files import UNSPACED, itk_header
from bundle.formats.voxels import COMPLEX, check_numbers
from bundle.geometry import LPS_SIGNS, RAS_TO_LPS
from bundle.geometry.affines import corner_distance, spacing_of
from bundle.system.errors import DataWarning
from bundle.system.files import silent_libraries
from bundle.system.limits import Refused, size

if TYPE_CHECKING:
    import torch

MILLIMETRES = {1: 1e3, 3: 1e-3}
"""Millimetres in a metre and a micron, by ``xyzt_units``; any other unit, or none, counts as millimetres."""
UNREAD = {1: "single bits; save them as uint8", 1536: "floats of 128 bits; save them as float64", 2048: COMPLEX}
"""Types that NumPy does not have, by ``datatype``."""
SCANNER = 1
"""Code of a form that maps to scanner coordinates."""
ORTHOGONAL = 1e-4
"""How far from orthogonal ITK lets the axes of an sform be."""
APART = 0.1
"""Voxels by which two readings of a header may differ without a warning."""
FINE = 1e-3
"""Coarsest steps, in voxels, in which the numbers of a displacement may count."""
INTENT_VECTOR = 1007
"""NIfTI intent of a displacement field."""
ALIKE = "as in ITK, ANTs and 3D Slicer"


def nifti_place(header: nib.Nifti1Header, shape: Sequence[int]) -> tuple[np.ndarray, str]:
    """Voxel-to-world affine of a NIfTI header, and what other tools make of it.

    As in ITK 5.4, spacing is ``pixdim``. Directions and origin come from the sform if its axes are orthogonal and it
    has the scanner's code, agrees with the qform, or stands alone; else from the qform. Without either, the axes are
    those of LPS and the origin is 0. A sheared sform that stands alone, which ITK refuses, is used as it is. Lengths
    are converted from the unit of the header.

    Args:
        header: of NIfTI-1 or -2.
        shape: voxels along the spatial axes, 2 or 3.

    Returns:
        ``(4, 4)``, mm, RAS, and a line about a header that other tools read differently, or an empty one.

    Raises:
        Refused: for a negative spacing, which every tool mirrors in its own way.
    """
    scale = MILLIMETRES.get(int(header["xyzt_units"]) % 8, 1.0)
    spacing = header["pixdim"][1:4].astype(float)
    axes = min(len(shape), 3)
    if (spacing[:axes] < 0).any():
        found = size([f"{length:g}" for length in spacing.tolist()])
        raise Refused(f"a spacing of {found}, expected more than 0; correct the header")
    missing = ~np.isfinite(spacing) | (spacing == 0)
    spacing[missing] = 1
    sform, qform = _sform(header), _qform(header, spacing)
    affine, note = _chosen(header, sform, qform, spacing, shape)
    affine[:3] *= scale
    return affine, note or (UNSPACED if missing[:axes][np.array(shape[:axes]) > 1].any() else "")


def nifti(array: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    """NIfTI image with the affine as its sform and, unless it is sheared, its qform: all tools place it alike.

    A sheared image gets no qform, so that ITK, which cannot hold shear, refuses it instead of reading another grid.
    NIfTI keeps a place in single precision, which has steps of 0.01 mm at 200 m.

    Args:
        array: voxels, spatial axes first.
        affine: ``(4, 4)`` voxel-to-world, mm, RAS.

    Warns:
        DataWarning: about a place that is rounded by more than a part of a voxel.
    """
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, code=1)
    spacing = spacing_of(affine).min()
    if (rounded := corner_distance(array.shape[:3], affine, image.get_sform())) > APART * spacing:
        note = f"NIfTI keeps places in single precision, {rounded:.2g} mm off here, where voxels are {spacing:.2g} mm"
        warnings.warn(f"{note}; move the images nearer to the origin", DataWarning, stacklevel=2)
    image.set_qform(affine, code=1, strip_shears=True)
    if corner_distance(array.shape[:3], affine, image.get_qform()) > APART * spacing:
        image.set_qform(None, code=0)
    image.header.set_xyzt_units("mm")
    return image


def displacement_image(displacement: torch.Tensor, fixed_affine: np.ndarray) -> nib.Nifti1Image:
    """Displacement field as ITK, 3D Slicer and ANTs read it: ``(X, Y, Z, 1, 3)``, intent vector, LPS mm.

    Args:
        displacement: ``(3, *fixed_shape)``, mm, RAS.
        fixed_affine: ``(4, 4)`` voxel-to-world of the fixed image.
    """
    lps = LPS_SIGNS * displacement.cpu().numpy()
    largest = np.float32(np.abs(lps).max(initial=0))
    # Between worlds that are far apart, the steps of single precision would be visible.
    fine = np.spacing(largest) < FINE * spacing_of(fixed_affine).min()
    vectors = np.moveaxis(lps, 0, -1)[..., None, :].astype(np.float32 if fine else np.float64)
    image = nifti(vectors, fixed_affine)
    image.header.set_intent(INTENT_VECTOR)
    return image


def nifti_type(header: nib.Nifti1Header) -> np.dtype:
    """Type of the voxels of a NIfTI header.

    Raises:
        Refused: when they are not one real number each.
    """
    code = int(header["datatype"])
    if code not in TYPES.code:
        raise Refused(f"the datatype {code} in its header is none of NIfTI; correct the header")
    if TYPES.dtype[code].kind == "V" and code in UNREAD:
        raise Refused(f"voxels of {UNREAD[code]}")
    voxel = header.get_data_dtype()
    check_numbers(voxel)
    return voxel


def _sform(header: nib.Nifti1Header) -> np.ndarray | None:
    if int(header["sform_code"]) <= 0:
        return None
    return np.vstack([*(header[f"srow_{axis}"] for axis in "xyz"), [0, 0, 0, 1]]).astype(float)


def _qform(header: nib.Nifti1Header, spacing: np.ndarray) -> np.ndarray | None:
    """Affine of a header's quaternion, scaled to length 1 if it is longer."""
    if int(header["qform_code"]) <= 0:
        return None
    vector = np.nan_to_num([float(header[f"quatern_{axis}"]) for axis in "bcd"])
    rest = 1 - vector @ vector
    quaternion = np.array([np.sqrt(rest), *vector] if rest > 1e-7 else [0, *vector / np.linalg.norm(vector)])
    affine = np.eye(4)
    handed = [1, 1, -1 if header["pixdim"][0] < 0 else 1]
    affine[:3, :3] = quat2mat(quaternion) * spacing * handed
    affine[:3, 3] = np.nan_to_num([float(header[f"qoffset_{axis}"]) for axis in "xyz"])
    return affine


def _chosen(
    header: nib.Nifti1Header,
    sform: np.ndarray | None,
    qform: np.ndarray | None,
    spacing: np.ndarray,
    shape: Sequence[int],
) -> tuple[np.ndarray, str]:
    """The affine of one of the forms, before units, and the line about the other reading."""
    if sform is None and qform is None:
        return RAS_TO_LPS * [*spacing, 1], (
            f"neither qform nor sform says where it is, nor which side is left; it is placed {ALIKE}, others, such as "
            "FSL and nibabel, mirror or move it; set a form in the header"
        )
    if sform is None or not _invertible(sform):
        if sform is None or qform is None:
            return next(form for form in (qform, sform) if form is not None), ""
        return qform, "its sform is no place; the qform is used, other tools may take the sform; correct the header"
    straight = _orthogonal(sform)
    if qform is None and not straight:
        return sform, (
            "its sform is sheared, which ITK, ANTs and 3D Slicer refuse; it is read as it is: resample it to a grid "
            "without shear before it goes there"
        )
    placed = _spaced(sform, spacing, min(len(shape), 3))
    if qform is None:
        return _spacings_compared(placed, sform, shape)
    apart = _apart(shape, sform, qform)
    if straight and (int(header["sform_code"]) == SCANNER or apart < 1e-3 or _itk_confuses(header, sform, qform)):
        affine, note = _spacings_compared(placed, sform, shape)
        used, other = "sform", "qform"
    else:
        affine, note, used, other = qform, "", "qform", "sform"
    if not note and apart > APART:
        distance = corner_distance(shape, sform, qform)
        note = (
            f"sform and qform disagree by up to {distance:.3g} mm; the {used} is used, {ALIKE}, other tools may take "
            f"the {other}; correct the header"
        )
    return affine, note


def _spacings_compared(placed: np.ndarray, sform: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, str]:
    """The sform, with the spacing of ``pixdim`` where the two differ."""
    if _apart(shape, placed, sform) <= 1e-3:
        return sform, ""
    if _apart(shape, placed, sform) <= APART:
        return placed, ""
    ours, theirs = (size([f"{length:.4g}" for length in spacing_of(affine)]) for affine in (placed, sform))
    return placed, (
        f"pixdim has the spacing {ours} and the sform {theirs}; pixdim is used, {ALIKE}, others, such as FSL and "
        "nibabel, take the sform; correct the header"
    )


def _spaced(sform: np.ndarray, spacing: np.ndarray, axes: int) -> np.ndarray:
    """An affine with other lengths for its first axes."""
    placed, lengths = sform.copy(), spacing_of(sform)
    placed[:3, :axes] *= (spacing / lengths)[:axes]
    return placed


def _invertible(affine: np.ndarray) -> bool:
    lengths = spacing_of(affine)
    if not (np.isfinite(affine).all() and (lengths > 0).all()):
        return False
    return abs(float(np.linalg.det(affine[:3, :3] / lengths))) > 1e-3


def _itk_confuses(header: nib.Nifti1Header, sform: np.ndarray, qform: np.ndarray) -> bool:
    """Whether ITK takes two forms with the same origin, and the same spacings in any order, for one.

    It compares singular vectors, whose signs depend on its algorithm: only ITK can tell.
    """
    lengths = np.sort(spacing_of(sform)) - np.sort(spacing_of(qform))
    if np.abs(sform[:3, 3] - qform[:3, 3]).max() > ORTHOGONAL or np.abs(lengths).max() > ORTHOGONAL:
        return False
    # ITK does not read NIfTI-2, and gives a slice no third axis.
    if isinstance(header, nib.Nifti2Header) or header["dim"][0] < 3:
        return False
    with tempfile.TemporaryDirectory() as folder, silent_libraries():
        path = Path(folder) / "header.nii"
        path.write_bytes(header.binaryblock + bytes(4))
        read = itk_header(path)
    axes = RAS_TO_LPS[:3, :3] @ np.array([read.GetDirection(axis) for axis in range(3)]).T
    off_sform, off_qform = (np.abs(axes - form[:3, :3] / spacing_of(form)).max() for form in (sform, qform))
    return bool(off_sform < off_qform)


def _orthogonal(sform: np.ndarray) -> bool:
    axes = sform[:3, :3] / spacing_of(sform)
    return bool(np.abs(axes @ axes.T - np.eye(3)).max() <= ORTHOGONAL)


def _apart(shape: Sequence[int], affine: np.ndarray, other: np.ndarray) -> float:
    """Largest distance between the corners of a grid under two affines, in voxels."""
    return corner_distance(shape, affine, other) / float(spacing_of(affine).min())
