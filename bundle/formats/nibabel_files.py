"""NIfTI and FreeSurfer's MGH: the header is checked, then the voxels are read, in one opening of the file."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np
from nibabel.freesurfer.mghformat import DATA_OFFSET, MGHHeader
from nibabel.spatialimages import SpatialImage

from bundle.formats.arrays import Found, channels_first
from bundle.formats.nifti_place import nifti_place
from bundle.geometry.affines import corner_distance, spacing_of
from bundle.system.limits import Refused, check_declared, regular_file, size

GZIP = b"\x1f\x8b"
LARGEST_EXTENSION = 2**26
"""Bytes between the header and the voxels of a NIfTI file."""
SHORT = "shorter than the header of {}"


def read_nifti(path: Path, kind: str) -> Found:
    """Read a NIfTI file of one part."""
    with opened_nifti(path) as (image, header):
        return found_in(image, header)


def read_mgh(path: Path, kind: str) -> Found:
    """Read an MGH file, compressed (``.mgz``) or not."""
    with _uncompressed(path) as file:
        start = file.read(DATA_OFFSET)
        if len(start) < DATA_OFFSET:
            raise ValueError(SHORT.format("MGH"))
        *shape, code = np.frombuffer(start[4:24], ">i4").tolist()
        _check_shape(shape)
        # Its footer lies behind the voxels, which a wrong size would look for far away.
        check_declared(shape, int(MGHHeader._data_type_codes.bytespervox[code]), path)
        file.seek(0)
        image = nib.MGHImage.from_file_map({"image": nib.FileHolder(fileobj=file)}, mmap=False)
        return found_in(image)


@contextmanager
def opened_nifti(path: Path) -> Iterator[tuple[nib.Nifti1Image, nib.Nifti1Header]]:
    """The image of a NIfTI file whose header has been checked; its voxels are read as long as the file is open.

    Its header comes as it is in the file beside it: nibabel mends what it thinks is wrong, which ITK reads as it is.

    Raises:
        Refused: when the header asks for more than the file can hold or than is read; for voxels that are no numbers.
        Exception: when the file cannot be read; of many kinds.
    """
    with _uncompressed(path) as file:
        header = _checked_header(file, path)
        file.seek(0)
        kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        yield kind.from_file_map({"image": nib.FileHolder(fileobj=file)}, mmap=False), header
        file.read(1)  # the checksum of a compressed file is looked at behind its end


def found_in(image: SpatialImage, header: Any = None) -> Found:
    """What an image of nibabel holds.

    Args:
        image: of a file, or in memory.
        header: as it is in the file; None takes the image's.
    """
    header = image.header if header is None else header
    affine, note = np.asarray(image.affine, dtype=float), ""
    if isinstance(header, nib.Nifti1Header):
        affine, note = nifti_place(header, image.shape[:3])
    array = np.asanyarray(image.dataobj)
    stored = np.dtype(image.get_data_dtype()).newbyteorder("=") if nib.is_proxy(image.dataobj) else array.dtype
    if (getattr(image.dataobj, "slope", 1), getattr(image.dataobj, "inter", 0)) != (1, 0):
        stored = np.dtype(np.float32)
    return Found(channels_first(array), affine, stored, note)


def nifti(array: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    """NIfTI image whose affine is its sform and, where it has no shear, its qform: all tools place it alike.

    A sheared one has no qform, so that ITK, which cannot hold it, refuses it rather than read another grid.

    Args:
        array: voxels, spatial axes first.
        affine: ``(4, 4)`` voxel-to-world, mm, RAS.
    """
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1, strip_shears=True)
    if corner_distance(array.shape[:3], affine, image.get_qform()) > 0.1 * spacing_of(affine).min():
        image.set_qform(None, code=0)
    image.header.set_xyzt_units("mm")
    return image


def write_nifti(voxels: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write ``(X, Y, Z[, channels])``."""
    nib.save(nifti(voxels, affine), path)


@contextmanager
def _uncompressed(path: Path) -> Iterator[IO[bytes]]:
    """Content of a file, which is compressed where it begins as gzip does, whatever it is called."""
    with regular_file(path).open("rb") as file:
        compressed = file.read(2) == GZIP
        file.seek(0)
        if not compressed:
            yield file
            return
        with gzip.GzipFile(fileobj=file) as content:
            yield content  # type: ignore[misc]


def _check_shape(shape: Any) -> None:
    if not shape or min(shape) < 1:
        raise Refused(f"its header declares {size(shape) or 'no'} voxels, expected 1 along each axis at least")


def _checked_header(file: IO[bytes], path: Path) -> nib.Nifti1Header:
    start = file.read(540)
    second = 540 in (int.from_bytes(start[:4], order) for order in ("little", "big"))
    kind = nib.Nifti2Header if second else nib.Nifti1Header
    if len(start) < kind.sizeof_hdr:
        raise ValueError(SHORT.format("NIfTI"))
    header = kind(start[: kind.sizeof_hdr], check=False)
    shape, voxel = header.get_data_shape(), header.get_data_dtype()
    if voxel.kind not in "biuf":
        raise Refused(f"voxels of the type {voxel}, expected one number each")
    _check_shape(shape)
    check_declared(shape, voxel.itemsize, path)
    offset = float(header["vox_offset"])
    if not offset <= LARGEST_EXTENSION:
        raise Refused(f"its voxels start at byte {offset:.0f}, expected {LARGEST_EXTENSION} at most; damaged")
    file.seek(kind.sizeof_hdr)
    _check_extensions(file, int(offset), ">" if header.endianness == ">" else "<")
    return header


def _check_extensions(file: IO[bytes], offset: int, order: str) -> None:
    """Extensions of a NIfTI header, whose lengths are believed when they are read, lie before the voxels."""
    place = file.tell() + 4
    extended = file.read(4)[:1] not in (b"", b"\0")
    while extended and place < offset:
        file.seek(place)
        word = file.read(4)
        length = int(np.frombuffer(word.ljust(4, b"\0"), f"{order}i4")[0])
        if length < 8 or place + length > offset:
            raise Refused(f"an extension of {length} bytes in its header, which ends at byte {offset}; damaged")
        place += length
