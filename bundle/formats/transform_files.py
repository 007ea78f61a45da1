"""Transforms from and to the files of ITK, 3D Slicer and ANTs: LPS there, RAS here."""

from __future__ import annotations

import re
import tempfile
import warnings
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bundle.dicom.spatial_registration import read_registration
from bundle.formats.dicom_volume import is_dicom_image
from bundle.formats.itk_files import affine_of, checked_header, header_note, stored_type
from bundle.formats.nibabel_files import opened_nifti
from bundle.formats.nifti_place import INTENT_VECTOR, nifti_place
from bundle.geometry import LPS_SIGNS, RAS_TO_LPS, Displacement, Transform, flip, spacing_of
from bundle.system.errors import DataWarning, brief
from bundle.system.files import moved_into_place, silent_exit, silent_libraries
from bundle.system.limits import Refused, check_hdf5, check_matlab, check_text, exists, regular_file, spelt_otherwise
from bundle.system.on_demand import itk

FIELD_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
ITK_SUFFIXES = (".h5", ".hdf5", ".tfm", ".txt", ".mat")
AFFINES = re.compile(rb"(?<![A-Za-z0-9])(?:MatrixOffsetTransformBase|Rigid3DTransform)(_(?:double|float)_[23]_[23])")
"""What ANTs, c3d_affine_tool and greedy call an affine: names that ITK writes, but does not read in Python."""
FLATTENED = 1e9
"""Condition of a matrix that has no inverse but for rounding."""
POINTS = ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (2.0, -3.0, 5.0))
INTENT_DISPLACEMENT = 1006
"""NIfTI intent of a field whose vectors ITK takes for RAS; those of ``INTENT_VECTOR`` are LPS."""
UNKNOWN = re.compile(r'instance of "(\w+?)_(?:double|float)_')
"""How ITK names a transform that it does not have, such as those of 3D Slicer."""
FIELD_TYPE, MODELING = "displacement field type", "modeling"
"""What 3D Slicer writes into the NRRD of a field that takes moving points to fixed ones."""
SUPPORTED = (
    "supported are affine transforms, displacement fields and composites of them; 3D Slicer converts others to a "
    "displacement field"
)
PARAMETERS = re.compile(rb"^\s*(Fixed)?Parameters:", re.MULTILINE)
OTHER_FIELDS = {
    b"Mapping": "a deformation of SPM, which holds positions",
    b"NREG_": "a transform of NiftyReg, which holds positions, or displacements with other signs",
}
"""How ``intent_name`` begins in fields with the intent of vectors that do not hold ITK's; what they are."""


def read_transform(path: str | Path) -> Transform:
    """Read a transform: an affine, a displacement field, or several of them.

    Args:
        path: a field (NIfTI, NRRD, MetaImage), an ITK transform (``.h5``, ``.tfm``, ``.txt``, ``.mat``), a DICOM
            registration or the folder of a registered pair.

    Returns:
        From fixed points to moving points, mm, RAS.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is not a transform, is of another kind, or is larger than the limit.
    """
    path = inside if (inside := Path(path, "displacement.nii.gz")).is_file() else Path(path)
    name = path.name.lower()
    if not exists(path):
        raise FileNotFoundError(f"transform not found: {path}{spelt_otherwise(path)}")
    named = name.endswith((*FIELD_SUFFIXES, *ITK_SUFFIXES))
    dicom = not named and path.is_file() and is_dicom_image(path)
    if not named and not dicom:
        raise ValueError(
            f"{path}: not a format of a transform; supported are displacement fields ({', '.join(FIELD_SUFFIXES)}), "
            f"ITK transforms ({', '.join(ITK_SUFFIXES)}) and files of DICOM registrations"
        )
    try:
        if dicom:
            return _read_dicom(regular_file(path))
        if name.endswith(ITK_SUFFIXES):
            _check_size(regular_file(path))
            return Transform(_read_itk(path))
        read = _read_nifti_field if name.endswith((".nii", ".nii.gz")) else _read_itk_field
        return Transform([read(path)])
    except Refused as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # every reader fails in its own way: ImageFileError, RuntimeError, EOFError ...
        raise ValueError(f"{path}: not a transform, or damaged ({brief(error)})") from error


def _read_dicom(path: Path) -> Transform:
    try:
        return read_registration(path)
    except ValueError as error:
        raise Refused(str(error)) from error


def _check_size(path: Path) -> None:
    """Refuse a file that asks for more memory than it can hold."""
    if path.suffix.lower() in (".h5", ".hdf5"):
        check_hdf5(path)
    elif path.suffix.lower() == ".mat":
        check_matlab(path)
    else:
        found = PARAMETERS.findall(check_text(path))
        if found.count(b"") > found.count(b"Fixed"):
            raise Refused("a transform without a line FixedParameters, whose Parameters ITK leaves out; add it")


def write_transform(transform: Transform, path: str | Path) -> None:
    """Write a transform for ITK, 3D Slicer and ANTs.

    Args:
        transform: mm, RAS.
        path: a text file (``.tfm``, ``.txt``) or ``.h5`` for an affine, ``.h5`` for one with displacements.

    Raises:
        ValueError: when the format cannot hold the transform.
    """
    suffixes = (".h5", ".tfm", ".txt") if transform.is_affine else (".h5",)
    if not str(path).lower().endswith(suffixes):
        kind = "an affine" if transform.is_affine else "a transform with a displacement field"
        raise ValueError(f"{path}: {kind} is written as {' or '.join(suffixes)}")
    if transform.is_affine:
        written = _itk_affine(transform.affine_part())
    else:
        written = itk.CompositeTransform[itk.D, 3].New()
        # ITK applies the transform that was added last first.
        for part in reversed(transform.parts):
            written.AddTransform(_itk_field(part) if isinstance(part, Displacement) else _itk_affine(part))
    with moved_into_place(Path(path)) as partial:
        itk.transformwrite([written], str(partial), compression=True)


def _itk_affine(matrix: np.ndarray) -> Any:
    lps = flip(matrix)
    affine = itk.AffineTransform[itk.D, 3].New()
    affine.SetMatrix(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3])))
    affine.SetTranslation(lps[:3, 3].tolist())
    return affine


def _itk_field(displacement: Displacement) -> Any:
    field = itk.DisplacementFieldTransform[itk.D, 3].New()
    lps = RAS_TO_LPS @ displacement.affine
    spacing = spacing_of(lps)
    grid = [*displacement.field.shape[1:], *lps[:3, 3], *spacing, *(lps[:3, :3] / spacing).ravel()]
    field.SetFixedParameters(itk.OptimizerParameters[itk.D]([float(value) for value in grid]))
    # ITK makes a field of these, which is filled in place: a list of its numbers would take forty times the memory.
    vectors = itk.array_view_from_image(field.GetModifiableDisplacementField())
    vectors[:] = (displacement.field.cpu().numpy() * LPS_SIGNS).transpose(3, 2, 1, 0)
    return field


def _read_itk(path: Path) -> list[np.ndarray | Displacement]:
    try:
        # HDF5 prints pages about a damaged file, and more at exit.
        with silent_libraries(), _names_of_itk(path) as known:
            read = itk.transformread(str(known))
    except RuntimeError as error:
        silent_exit()
        if unknown := UNKNOWN.search(str(error)):
            raise Refused(f"holds a {unknown[1]}; {SUPPORTED}") from error
        raise
    if len(read) > 1:
        note = f"{len(read)} transforms, of which the last applies first; SimpleITK takes the first alone"
        warnings.warn(f"{path}: {note}", DataWarning, stacklevel=3)
    return [part for transform in reversed(read) for part in _parts(itk.down_cast(transform))]


@contextmanager
def _names_of_itk(path: Path) -> Iterator[Path]:
    """A file whose affines and suffix are as ITK in Python knows them: the file itself if they are, else a copy."""
    content = path.read_bytes()
    # Strings may be padded, and must keep the length that the file declares.
    text = path.suffix.lower() in (".tfm", ".txt")
    filling = b" " if text else b"\0"
    renamed = AFFINES.sub(lambda name: (b"AffineTransform" + name[1]).ljust(len(name[0]), filling), content)
    renamed = renamed.removeprefix(BOM_UTF8) if text else renamed
    if renamed == content and path.suffix.islower():
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name.lower()
        copy.write_bytes(renamed)
        yield copy


def _parts(transform: Any) -> list[np.ndarray | Displacement]:
    """Parts of an ITK transform in the order in which they apply."""
    kind = transform.GetNameOfClass()
    if (transform.GetInputSpaceDimension(), transform.GetOutputSpaceDimension()) != (3, 3):
        raise Refused(f"a {kind} of a plane, expected one of 3D; a slice is a volume of one slice")
    if kind == "CompositeTransform":
        queue = [transform.GetNthTransform(number) for number in range(transform.GetNumberOfTransforms())]
        return [part for member in reversed(queue) for part in _parts(itk.down_cast(member))]
    if kind == "DisplacementFieldTransform":
        return [_displacement(transform.GetDisplacementField())]
    if transform.IsLinear():
        origin, *ends, other = (np.array(transform.TransformPoint(list(point))) for point in POINTS)
        matrix = np.eye(4)
        matrix[:3] = np.stack([*(end - origin for end in ends), origin], axis=1)
        # A transform that is not linear may claim to be.
        if np.allclose(matrix[:3] @ [*POINTS[-1], 1], other, rtol=1e-6, atol=1e-6):
            if np.linalg.cond(matrix[:3, :3]) > FLATTENED:
                raise Refused(f"its {kind} has no inverse, it makes a plane or less of space; damaged, write it again")
            return [flip(matrix)]
    raise Refused(f"holds a {kind}; {SUPPORTED}")


def _read_itk_field(path: Path) -> Displacement:
    image = checked_header(path)
    components, numbers = image.GetNumberOfComponents(), stored_type(path)
    if components != 3 or numbers.kind == "u":  # a picture in colours has three numbers without signs
        found = f"{components} value(s) per voxel of {numbers}"
        raise Refused(f"not a transform: {found}, expected vectors of 3, with signs")
    meta = image.GetMetaDataDictionary()
    if meta.HasKey(FIELD_TYPE) and meta[FIELD_TYPE] == MODELING:
        raise Refused("a modeling field of 3D Slicer, from moving to fixed points; save it there as a resampling field")
    # ITK would read a file of one slice as a planar image, and round double precision, unless it is told.
    number = itk.F if image.GetComponentSize() <= np.dtype(np.float32).itemsize else itk.D
    reader = itk.ImageFileReader[itk.VectorImage[number, 3]].New(FileName=str(path), ImageIO=image)
    reader.Update()
    if note := header_note(path):
        warnings.warn(f"{path}: {note}", DataWarning, stacklevel=2)
    return _displacement(reader.GetOutput())


def _displacement(image: Any) -> Displacement:
    """Displacement of an ITK image of vectors, LPS mm."""
    return _from_lps(itk.array_from_image(image).transpose(3, 2, 1, 0), affine_of(image))


def _read_nifti_field(path: Path) -> Displacement:
    with opened_nifti(path) as (voxels, header):
        intent = int(header["intent_code"])
        if voxels.ndim != 5 or voxels.shape[3:] != (1, 3) or intent not in (INTENT_DISPLACEMENT, INTENT_VECTOR):
            shape = " x ".join(map(str, voxels.shape))
            raise Refused(
                f"not a transform: {shape} values with intent {intent}, expected a field of X x Y x Z x 1 x 3 with "
                f"intent {INTENT_VECTOR} (vectors), such as displacement.nii.gz"
            )
        for start, what in OTHER_FIELDS.items():
            if header["intent_name"].item().startswith(start):
                raise Refused(f"{what}; convert it to displacements in mm as ITK and ANTs have them (LPS)")
        affine, note = nifti_place(header, voxels.shape[:3])
        vectors = np.moveaxis(np.asarray(voxels, dtype=np.float64)[..., 0, :], -1, 0)
    if note:
        warnings.warn(f"{path}: {note}", DataWarning, stacklevel=2)
    return _from_lps(vectors if intent == INTENT_VECTOR else vectors * LPS_SIGNS, affine)


def _from_lps(vectors: np.ndarray, affine: np.ndarray) -> Displacement:
    """Displacement of vectors ``(3, *shape)``, mm, LPS, on a grid whose affine is RAS."""
    if not np.isfinite(vectors).all():
        raise Refused("not a transform: it has NaN or infinite values")
    return Displacement(torch.as_tensor(np.ascontiguousarray(vectors * LPS_SIGNS)), affine)
