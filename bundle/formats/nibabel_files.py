"""NIfTI and FreeSurfer's MGH: the header is checked, then the voxels are read."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.freesurfer.mghformat import DATA_OFFSET, MGHHeader
from nibabel.spatialimages import SpatialImage

from bundle.formats.itk_files import read_itk
from bundle.formats.nifti_place import ALIKE, APART, nifti, nifti_place, nifti_type
from bundle.formats.voxels import Found, channels_first
from bundle.geometry.affines import corner_distance, spacing_of
from bundle.system.contents import length_of, uncompressed
from bundle.system.limits import Refused, check_declared, size

MAGIC, MAGIC_AT = (b"n+1\0", b"ni1\0", b"n+2\0", b"ni2\0"), 344
"""Magic words of a NIfTI header, and where NIfTI-1 has them."""
LONGEST_HEADER = 540
"""Bytes of a NIfTI-2 header, whose first word is this number."""
MGH_VERSION = b"\0\0\0\1"
UNPLACED = "its header has no place and no spacing; as in FreeSurfer, voxels are 1 mm, in coronal slices around 0"
MOST_AXES = 7
HALVES = (".hdr", ".img", ".hdr.gz", ".img.gz")
LARGEST_EXTENSION = 2**26
"""Bytes between the header and the voxels of a NIfTI file."""
LARGEST_MAT = 2**16
"""Bytes of SPM's ``.mat``, which holds one or two matrices."""
TIME_STEP = "time_step"
"""Key of what is kept of a NIfTI of several volumes: the step from one to the next, if it is given."""
UNSCALED = (
    "its scl_slope is {:g}, so that its scl_inter {:g} does not count, as for nibabel and FSL; ITK, ANTs and 3D Slicer "
    "add it; correct the header"
)


def read_nifti(path: Path, kind: str) -> Found:
    """Read a NIfTI file, or a pair of header and voxels by the name of either."""
    with opened_nifti(path) as (voxels, header):
        affine, note = nifti_place(header, voxels.shape[:3])
        slope, intercept, doubt = _scaling(header)
        stored = header.get_data_dtype().newbyteorder("=") if (slope, intercept) == (1, 0) else np.dtype(np.float32)
        step = float(header["pixdim"][4])
        meta = {TIME_STEP: f"{step:g}"} if len(voxels.shape) > 3 and voxels.shape[3] > 1 and step not in (0, 1) else {}
        note = "; ".join(filter(None, (note, doubt)))
        return Found(channels_first(np.asanyarray(voxels)), affine, stored, note, meta)


def read_half(path: Path, kind: str) -> Found:
    """Read a pair of header and voxels: NIfTI, or Analyze with ITK."""
    header, voxels = halves(path)
    if is_nifti(header):
        return read_nifti(path, kind)
    with uncompressed(voxels) as file:
        found = read_itk(header, kind, held=length_of(file))
    return replace(found, note=_elsewhere(header, voxels, found))


def _elsewhere(header: Path, voxels: Path, found: Found) -> str:
    """A line about SPM's ``.mat`` beside an Analyze pair, if it has another place for the image."""
    mat = header.with_name(header.name[: header.name.lower().rindex(".hdr")] + ".mat")
    if not mat.is_file() or mat.stat().st_size > LARGEST_MAT:
        return ""
    files = {"header": header, "image": voxels, "mat": mat}
    try:
        image = nib.Spm99AnalyzeImage.from_file_map({name: nib.FileHolder(str(file)) for name, file in files.items()})
    except Exception:  # a .mat of another program, such as FSL, at which SciPy fails in its own ways
        return ""
    distance = corner_distance(found.channels.shape[1:], found.affine, image.affine)
    if distance <= APART * spacing_of(found.affine).min():
        return ""
    return (
        f"{mat.name} beside it, by which SPM and nibabel go, has a place up to {distance:.3g} mm away; it is placed "
        f"{ALIKE}; write it as NIfTI with SPM"
    )


def read_mgh(path: Path, kind: str) -> Found:
    """Read an MGH file, compressed (``.mgz``) or not."""
    with uncompressed(path) as file:
        start = file.read(DATA_OFFSET)
        if len(start) < DATA_OFFSET:
            raise ValueError("shorter than the header of MGH")
        if start[:4] != MGH_VERSION:
            raise ValueError("no header of MGH")
        *shape, code = np.frombuffer(start[4:24], ">i4").tolist()
        _check_shape(shape)
        # The footer follows the voxels: a wrong size would have it read from far away.
        check_declared(shape, int(MGHHeader._data_type_codes.bytespervox[code]), path)
        file.seek(0)
        found = found_in(nib.MGHImage.from_file_map({"image": nib.FileHolder(fileobj=file)}, mmap=False))
        length_of(file)  # the checksum of a compressed file is only checked when its end is read
        return replace(found, note="" if int(np.frombuffer(start[28:30], ">i2")[0]) > 0 else UNPLACED)


def is_nifti(path: Path, magic: tuple[bytes, ...] = MAGIC) -> bool:
    """Whether a file begins with a NIfTI header of one of the magic words."""
    try:
        with uncompressed(path) as file:
            return _has_magic(file.read(LONGEST_HEADER), magic)
    except (OSError, EOFError, zlib.error):
        return False


def _has_magic(start: bytes, magic: tuple[bytes, ...] = MAGIC) -> bool:
    return start[4 if _is_second(start) else MAGIC_AT :].startswith(magic)


def _is_second(start: bytes) -> bool:
    return LONGEST_HEADER in (int.from_bytes(start[:4], order) for order in ("little", "big"))


@contextmanager
def opened_nifti(path: Path) -> Iterator[tuple[ArrayProxy, nib.Nifti1Header]]:
    """The voxels of a NIfTI file, to be read while it is open, and its header, which has been checked.

    The header is as the file has it: nibabel repairs what it thinks is wrong, ITK reads it as it stands.

    Raises:
        Refused: when the header declares more than the file can hold or than the limit, or voxels that are not numbers.
        Exception: of many kinds, when the file cannot be read.
    """
    described, stored = halves(path) if path.name.lower().endswith(HALVES) else (path, path)
    with uncompressed(described) as file:
        header = _checked_header(file, stored, single=described == stored)
    with uncompressed(stored) as file:
        scaling = _scaling(header)[:2]
        yield ArrayProxy(file, (_shape(header), header.get_data_dtype(), int(header["vox_offset"]), *scaling)), header
        length_of(file)  # the checksum of a compressed file is only checked when its end is read


def halves(path: Path) -> tuple[Path, Path]:
    """The two files of an image, header and voxels, by the name of either; twice a file that holds both.

    Raises:
        Refused: when one is missing.
    """
    beginning = path.name.lower().removesuffix(".gz").removesuffix(".hdr").removesuffix(".img")
    beside = {one.name.lower(): one for one in sorted(path.parent.iterdir())}
    found = []
    for half in (".hdr", ".img"):
        names = (path.name.lower(), f"{beginning}{half}", f"{beginning}{half}.gz")
        there = [beside[name] for name in names if name in beside and half in name[len(beginning) :]]
        if not there:
            if is_nifti(path, MAGIC[::2]):
                return path, path
            raise Refused(f"no {half} file beside it; copy it too: header (.hdr) and voxels (.img) are one image")
        found.append(there[0])
    return found[0], found[1]


def belongs_to_header(path: Path) -> bool:
    """Whether a file has the voxels of an image in two files, whose header (``.hdr``) lies beside it."""
    if not path.name.lower().endswith(HALVES[1::2]):
        return False
    try:
        return halves(path)[0] != path
    except Refused:
        return False


def found_in(image: SpatialImage) -> Found:
    """What a nibabel image holds, where its file would be: an affine that was changed goes into the header first."""
    affine, note = np.asarray(image.affine, dtype=float), ""
    header = image.header
    if isinstance(header, nib.Nifti1Header):
        if image.affine is not None and not np.allclose(affine, header.get_best_affine(), equal_nan=True):
            header = type(image)(image.dataobj, affine, header).header
        affine, note = nifti_place(header, image.shape[:3])
    array = np.asanyarray(image.dataobj)
    stored = np.dtype(image.get_data_dtype()).newbyteorder("=") if nib.is_proxy(image.dataobj) else array.dtype
    if (getattr(image.dataobj, "slope", 1), getattr(image.dataobj, "inter", 0)) != (1, 0):
        stored = np.dtype(np.float32)
    return Found(channels_first(array), affine, stored, note)


def write_nifti(voxels: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write ``(X, Y, Z[, channels])``."""
    nib.save(nifti(voxels, affine), path.absolute())  # nibabel takes a leading ~ for the home folder


def _check_shape(shape: Any) -> None:
    if not shape or min(shape) < 1:
        raise Refused(f"its header declares {size(shape) or 'no'} voxels, expected 1 along each axis at least")


def _shape(header: nib.Nifti1Header) -> tuple[int, ...]:
    """Voxels along each axis; as in ITK, an axis beyond the third that the header leaves at 0 has one."""
    shape = tuple(map(int, header.get_data_shape()))
    return (*shape[:3], *(length or 1 for length in shape[3:]))


def _scaling(header: nib.Nifti1Header) -> tuple[float, float, str]:
    """Slope and intercept from stored numbers to values, and a line about those that other tools read differently.

    Raises:
        Refused: when there is a slope, but the intercept is not a number.
    """
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):
        counted = np.isfinite(intercept) and intercept != 0
        return 1.0, 0.0, UNSCALED.format(slope, intercept) if counted else ""
    if not np.isfinite(intercept):
        raise Refused(f"scl_slope is {slope:g} and scl_inter {intercept:g}, expected two numbers; correct the header")
    return slope, intercept, ""


def _checked_header(file: IO[bytes], voxels: Path, single: bool) -> nib.Nifti1Header:
    """Header of an open file.

    Args:
        file: the file, at its beginning.
        voxels: the file that holds the voxels.
        single: whether that is the same file.
    """
    start = file.read(LONGEST_HEADER)
    kind = nib.Nifti2Header if _is_second(start) else nib.Nifti1Header
    if len(start) < kind.sizeof_hdr:
        raise ValueError("shorter than the header of NIfTI")
    if not _has_magic(start):
        raise ValueError("no header of NIfTI")
    header = kind(start[: kind.sizeof_hdr], check=False)
    if not 0 <= header["dim"][0] <= MOST_AXES:
        raise ValueError("the number of axes in its header is none")
    shape, voxel = _shape(header), nifti_type(header)
    _check_shape(shape)
    check_declared(shape, voxel.itemsize, voxels)
    first, offset = kind.single_vox_offset if single else 0, float(header["vox_offset"])
    if not first <= offset <= LARGEST_EXTENSION:
        raise Refused(
            f"its voxels start at byte {offset:.0f}, expected {first} to {LARGEST_EXTENSION}; correct vox_offset"
        )
    if single:
        file.seek(kind.sizeof_hdr)
        _check_extensions(file, int(offset), ">" if header.endianness == ">" else "<")
    return header


def _check_extensions(file: IO[bytes], offset: int, order: str) -> None:
    """Check that the extensions of a NIfTI header, whose lengths its readers trust, end before the voxels."""
    place = file.tell() + 4
    extended = file.read(4)[:1] not in (b"", b"\0")
    while extended and place < offset:
        file.seek(place)
        word = file.read(4)
        length = int(np.frombuffer(word.ljust(4, b"\0"), f"{order}i4")[0])
        if length < 8 or place + length > offset:
            raise Refused(f"an extension of {length} bytes in its header, which ends at byte {offset}; damaged")
        place += length
