"""Transforms as DICOM registration objects, and back: LPS there, RAS here.

The Registered frame of reference is the fixed image's, the Source frame that of the moving image.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import torch
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DeformableSpatialRegistrationStorage,
    SpatialRegistrationStorage,
)
from pydicom.valuerep import DSfloat

from bundle.dicom.common import code, first_header, image_references, new_object, refer_to
from bundle.dicom.series import Series
from bundle.geometry import LPS_SIGNS, RAS_TO_LPS, Displacement, Transform, flip, spacing_of
from bundle.system.limits import size

MOST_BYTES = 2**32 - 2**24
"""Most bytes of a field: lengths in DICOM have 32 bits, and the sequences around a field also hold references."""
EXACT = 1e-6
"""How far a matrix may be from a rotation to be called one; DICOM's decimal strings keep at least 1e-9."""


def registration_object(transform: Transform, fixed: Series, moving: Series) -> Dataset:
    """A transform as a registration object in the fixed image's study and frame of reference.

    Args:
        transform: from fixed points to moving ones, mm, RAS: affines, or a displacement on the fixed grid followed by
            affines.
        fixed: series whose frame of reference is the Registered one.
        moving: series whose frame of reference is the Source.

    Returns:
        A Spatial Registration for an affine, else a Deformable Spatial Registration.

    Raises:
        ValueError: when a field is too large for DICOM or has another form, or its grid is sheared.
    """
    kind = SpatialRegistrationStorage if transform.is_affine else DeformableSpatialRegistrationStorage
    made = new_object(first_header(fixed), kind, "registration", "registration")
    made.Modality, made.Laterality = "REG", ""
    made.FrameOfReferenceUID, made.PositionReferenceIndicator = fixed.frame, ""
    made.ContentLabel, made.ContentDescription, made.ContentCreatorName = "REGISTRATION", "moving to fixed", ""
    images = [(fixed, image_references(fixed)), (moving, image_references(moving))]
    if transform.is_affine:
        made.RegistrationSequence = _matrix_items(transform.affine_part(), images)
    else:
        made.DeformableRegistrationSequence = _deformable_items(transform, images)
    refer_to(made, images)
    return made


def read_registration(path: str | Path) -> Transform:
    """Read a registration object, ours or another program's.

    Args:
        path: file of a Spatial Registration or a Deformable Spatial Registration.

    Returns:
        From the Registered frame (fixed points) to the one Source frame that is not at the same place (moving points),
        mm, RAS.

    Raises:
        ValueError: when it is not a registration, has several moving images, or is damaged.
    """
    if pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        raise ValueError("a deflated DICOM file; expected one that is not compressed")
    read = pydicom.dcmread(path)
    if read.SOPClassUID == SpatialRegistrationStorage:
        return Transform([np.linalg.inv(_read_matrix(read))])
    if read.SOPClassUID == DeformableSpatialRegistrationStorage:
        return _read_deformable(read)
    raise ValueError(
        f"a DICOM object of the kind {read.SOPClassUID.name}; expected a Spatial Registration or a Deformable Spatial "
        "Registration"
    )


def matrix_type(matrix: np.ndarray) -> str:
    """RIGID: a rotation, ``R^T R = I``; RIGID_SCALE: with scaled axes, ``R^T R`` diagonal; AFFINE (PS3.3 C.20.2.1.2).

    A reflection is AFFINE: the others have none.
    """
    linear = matrix[:3, :3]
    gram = linear.T @ linear
    if np.linalg.det(linear) <= 0 or np.abs(gram - np.diag(np.diag(gram))).max() > EXACT:
        return "AFFINE"
    return "RIGID" if np.abs(np.diag(gram) - 1).max() <= EXACT else "RIGID_SCALE"


def _matrix_items(matrix: np.ndarray, images: list[tuple[Series, list[Dataset]]]) -> list[Dataset]:
    """Items of a Registration Sequence: every matrix takes its own frame to the Registered one (PS3.3 C.20.2.1.1).

    ``_A M _B`` there gives the coordinates in A (Registered) of a point of B (Source): moving to fixed, the inverse of
    ours. The fixed image's own item is the identity.
    """
    items = []
    for (series, references), own, concept in (
        (images[0], np.eye(4), codes.DCM.FrameOfReferenceIdentity),
        (images[1], np.linalg.inv(matrix), codes.DCM.ImageContentBasedAlignment),
    ):
        item, registered = Dataset(), Dataset()
        item.FrameOfReferenceUID, item.ReferencedImageSequence = series.frame, references
        registered.RegistrationTypeCodeSequence = [code(concept)]
        registered.MatrixSequence = [_matrix_item(own)]
        item.MatrixRegistrationSequence = [registered]
        items.append(item)
    return items


def _matrix_item(matrix: np.ndarray) -> Dataset:
    """An affine, mm, RAS, as an item with its 16 numbers row by row, LPS."""
    item, lps = Dataset(), flip(matrix)
    item.FrameOfReferenceTransformationMatrix = [DSfloat(value, auto_format=True) for value in lps.ravel().tolist()]
    item.FrameOfReferenceTransformationMatrixType = matrix_type(lps)
    return item


def _deformable_items(transform: Transform, images: list[tuple[Series, list[Dataset]]]) -> list[Dataset]:
    """Items of a Deformable Registration Sequence; that of the fixed image's own frame has neither matrix nor grid.

    A Source coordinate is ``M_post (M_pre X + D(X))`` with ``X`` a Registered one (PS3.3 C.20.3.1.1), which is our
    ``T(p)`` with ``D`` the displacement, ``M_post`` the initial alignment and ``M_pre`` the identity. The identity is
    written too, because widespread readers require both.
    """
    displacement, *after = transform.parts
    if not isinstance(displacement, Displacement) or any(isinstance(part, Displacement) for part in after):
        raise ValueError("DICOM holds a displacement followed by affines; this transform is another composition")
    (fixed, fixed_images), (moving, moving_images) = images
    own, item = Dataset(), Dataset()
    own.SourceFrameOfReferenceUID, own.ReferencedImageSequence = fixed.frame, fixed_images
    own.RegistrationTypeCodeSequence = [code(codes.DCM.FrameOfReferenceIdentity)]
    item.SourceFrameOfReferenceUID, item.ReferencedImageSequence = moving.frame, moving_images
    item.RegistrationTypeCodeSequence = [code(codes.DCM.ImageContentBasedAlignment)]
    item.PreDeformationMatrixRegistrationSequence = [_matrix_item(np.eye(4))]
    item.PostDeformationMatrixRegistrationSequence = [_matrix_item(Transform(after).affine_part())]
    item.DeformableRegistrationGridSequence = [_grid_item(displacement)]
    return [own, item]


def _grid_item(displacement: Displacement) -> Dataset:
    """A displacement as vectors in mm, LPS, X fastest (PS3.3 C.20.3.1.3).

    The third axis of the grid is the cross product of the first two; one that runs the other way is reversed.
    """
    field, lps = displacement.field.cpu().numpy(), RAS_TO_LPS @ displacement.affine
    if field[0].size * 12 > MOST_BYTES:
        raise ValueError(f"a field of {field[0].size} vectors, DICOM holds {MOST_BYTES // 12}; take a coarser image")
    if np.linalg.det(lps[:3, :3]) < 0:
        field = field[..., ::-1]
        lps = lps @ _reversed_last_axis(field.shape[3])
    spacing = spacing_of(lps)
    axes = lps[:3, :3] / spacing
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-4:
        raise ValueError("the grid of the field is sheared, which DICOM cannot hold; resample the fixed image")
    item = Dataset()
    item.ImagePositionPatient = decimals(lps[:3, 3])
    item.ImageOrientationPatient = decimals(axes[:, :2].T.ravel())
    item.GridDimensions, item.GridResolution = list(field.shape[1:]), spacing.tolist()
    item.VectorGridData = (field * LPS_SIGNS).transpose(3, 2, 1, 0).astype("<f4").tobytes()
    return item


def decimals(values: np.ndarray) -> list[DSfloat]:
    """Numbers as decimal strings, of at most 16 characters."""
    return [DSfloat(value, auto_format=True) for value in np.asarray(values, dtype=float).tolist()]


def _reversed_last_axis(length: int) -> np.ndarray:
    """From voxel indices of a grid with a reversed last axis to those of the grid itself, ``(4, 4)``."""
    turn = np.diag([1.0, 1.0, -1.0, 1.0])
    turn[2, 3] = length - 1
    return turn


def _read_matrix(read: Dataset) -> np.ndarray:
    """Source to Registered, mm, RAS, of the items that are not the identity; images of one frame share a matrix."""
    found: list[np.ndarray] = []
    for item in read.RegistrationSequence:
        registered = item.get("MatrixRegistrationSequence") or ()  # empty for an image in the Registered frame
        if len(registered) > 1:
            raise ValueError(f"it has {len(registered)} registrations of one image, expected one")
        matrix = np.eye(4)
        for step in registered[0].MatrixSequence if registered else ():
            matrix = matrix @ _numbers(step)  # M1 M2 M3, PS3.3 equation C.20.2-2
        if not any(np.allclose(matrix, other, rtol=0, atol=EXACT) for other in (np.eye(4), *found)):
            found.append(matrix)
    if len(found) > 1:
        raise ValueError(f"it registers {len(found)} images to a third frame; expected one moving to one fixed image")
    return flip(found[0]) if found else np.eye(4)


def _read_deformable(read: Dataset) -> Transform:
    items = [item for item in read.DeformableRegistrationSequence if item.get("DeformableRegistrationGridSequence")]
    if len(items) != 1:
        raise ValueError(f"it holds {len(items)} deformation grids, expected one")
    (item,) = items
    before, after = (_optional_matrix(item, f"{when}DeformationMatrixRegistrationSequence") for when in ("Pre", "Post"))
    # pydicom gives the bytes of numbers as the file has them.
    order = ">" if read.original_encoding[1] is False else "<"
    displacement = _read_grid(item.DeformableRegistrationGridSequence[0], order)
    if not np.array_equal(before, np.eye(4)):
        # D is looked up at X itself, so M_pre X + D(X) is X displaced by (M_pre X - X) + D(X), which is affine + D.
        grid = displacement.affine, displacement.field.shape[1:]
        field = displacement.field + Transform([before]).displacement_on(*grid)
        displacement = Displacement(field, displacement.affine)
    return Transform([displacement, after])


def _optional_matrix(item: Dataset, name: str) -> np.ndarray:
    steps = item.get(name)
    return flip(_numbers(steps[0])) if steps else np.eye(4)


def _numbers(item: Dataset) -> np.ndarray:
    matrix = np.array(item.FrameOfReferenceTransformationMatrix, dtype=float).reshape(4, 4)
    if not np.isfinite(matrix).all() or not np.allclose(matrix[3], [0, 0, 0, 1]) or np.linalg.det(matrix) == 0:
        raise ValueError("one of its matrices is no invertible affine")
    return matrix


def _read_grid(item: Dataset, order: str) -> Displacement:
    shape = [int(length) for length in item.GridDimensions]
    spacing = np.array(item.GridResolution, dtype=float)
    axes = np.array(item.ImageOrientationPatient, dtype=float).reshape(2, 3)
    if len(shape) != 3 or min(shape) < 1 or not (spacing > 0).all() or np.abs(axes @ axes.T - np.eye(2)).max() > 1e-3:
        raise ValueError("the header of its grid is damaged")
    if len(item.VectorGridData) != 12 * int(np.prod(shape, dtype=object)):
        raise ValueError(f"{len(item.VectorGridData)} bytes of vectors, expected {size(shape)} vectors of 12 bytes")
    lps = np.eye(4)
    lps[:3, :3] = np.stack([*axes, np.cross(*axes)], axis=1) * spacing
    lps[:3, 3] = np.array(item.ImagePositionPatient, dtype=float)
    vectors = np.frombuffer(item.VectorGridData, f"{order}f4").reshape(*shape[::-1], 3).transpose(3, 2, 1, 0)
    if not np.isfinite(vectors).all():
        raise ValueError("its field is undefined (NaN) or infinite at some points; expected one that is defined")
    ras = vectors * LPS_SIGNS
    return Displacement(torch.as_tensor(np.ascontiguousarray(ras)), RAS_TO_LPS @ lps)
