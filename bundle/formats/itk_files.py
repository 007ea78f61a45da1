"""NRRD, MetaImage, single DICOM files, and whatever else ITK knows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from bundle.formats.voxels import COMPLEX, Found, channels_first, segment_numbers, segments_of
from bundle.geometry import RAS_TO_LPS, spacing_of
from bundle.geometry.spaces import OTHER_LENGTHS
from bundle.system.contents import check_held, check_numbers_held, check_packed, not_an_image
from bundle.system.errors import brief
from bundle.system.files import silent_libraries
from bundle.system.limits import Refused, check_declared, regular_file, size
from bundle.system.on_demand import itk

DETACHED_SUFFIXES = (".nhdr", ".mhd", ".hdr")
"""Headers whose voxels are in another file."""
MOST_AXES = 4
ITK_TYPES = ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")
"""Voxel types that ITK in Python writes."""
READERS = ("GDCMImageIO", "HDF5ImageIO", "MetaImageIO", "NiftiImageIO", "NrrdImageIO")
"""ITK's readers that are used: others return whatever is in memory where a file is cut short, as those of GIPL, MRC
and VTK, mirror it, as that of MINC does, or give pictures a place."""
UNSUPPORTED = re.compile(r"not (?:supported|available)|[Cc]annot currently handle")
"""How ITK says that it knows something and does not read it."""
MISSING = re.compile(r"couldn't open \"([^\"]+)\"")
"""How ITK says that the voxels of a NRRD header are not there."""
ABSENT = "its voxels are in {}, which is not there; copy it too, or correct its path in the header"
META_TRUE = ("T", "t", "1")
"""How a word of a MetaImage header begins that ITK takes for true."""
META_SEPARATOR = re.compile(r"[=:][\s=:]*")
NRRD_HEAD = re.compile(rb"NRRD.*?\r?\n\r?\n", re.DOTALL)
NRRD_SKIPS = (b"line skip", b"lineskip", b"byte skip", b"byteskip")
"""Fields of a NRRD header by which its voxels begin elsewhere in their file."""
LONGEST_TEXT = 2**16
"""Bytes of a header that are searched for its units."""
UNITS = re.compile(rb"^(?:space units|units|DistanceUnits)\s*[:=](.*)$", re.MULTILINE)
SPACING = re.compile(rb"^(?:spacings|space directions|ElementSpacing|ElementSize)\s*[:=].*$", re.MULTILINE)
CHANNELS = re.compile(rb"^kinds:.*(?:list|vector|color|point)", re.MULTILINE)
"""Kinds of an axis that has no spacing."""
UNSPACED = "its header lacks the spacing of its voxels, which are taken as 1 mm, as in ITK; add it to the header"


def itk_header(path: str | Path) -> Any:
    """ITK's reader for an image, with the header read.

    Raises:
        Refused: when no reader knows the file.
        RuntimeError: when the header cannot be read.
    """
    header = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    if header is None and str(path).endswith((".MHA", ".MHD")):
        header = itk.MetaImageIO.New()  # which ITK finds by small letters alone
    if header is None or header.GetNameOfClass() not in READERS:
        what = not_an_image(Path(path)) or "damaged or not an image"
        raise Refused(f"cannot be read, {what}")
    header.SetFileName(str(path))
    with _kinds_named():
        header.ReadImageInformation()
    return header


@contextmanager
def _kinds_named() -> Iterator[None]:
    """Name what ITK knows and does not read, and voxels that are not there: neither is damaged."""
    try:
        yield
    except RuntimeError as error:
        if missing := MISSING.search(str(error)):
            raise Refused(ABSENT.format(PurePosixPath(missing[1].replace("\\", "/")).name)) from error
        if "determinant is 0" in str(error):
            raise Refused("its directions lie in one plane, or some have no length; correct the header") from error
        if UNSUPPORTED.search(str(error)):
            raise Refused(f"of a kind that ITK does not read ({brief(error)}); write it as NIfTI") from error
        raise


def checked_header(path: Path) -> Any:
    """The same, for a file that declares no more than it can hold, and no more than the limit.

    Raises:
        Refused: naming what it declares, and what was expected.
    """
    header = itk_header(regular_file(path))
    shape = tuple(header.GetDimensions(axis) for axis in range(header.GetNumberOfDimensions()))
    if header.GetNameOfClass() == "GDCMImageIO" and shape[2:] > (1,):
        raise Refused("DICOM of several frames by its content, whose places are not read under this name; call it .dcm")
    detached = str(path).lower().endswith(DETACHED_SUFFIXES)
    components = header.GetNumberOfComponents()
    check_declared((*shape, components), header.GetComponentSize(), None if detached else path)
    if header.GetNameOfClass() == "MetaImageIO":
        _check_meta_image(path, header.GetImageSizeInBytes(), header.GetComponentSize(), shape)
    if header.GetNameOfClass() == "NrrdImageIO":
        _check_nrrd(path, header.GetImageSizeInBytes())
    spacing = [header.GetSpacing(axis) for axis in range(len(shape))]
    if 0 in spacing:
        found = size([f"{length:g}" for length in spacing])
        raise Refused(f"spacing {found}, expected more than 0; correct the header")
    if len(shape) > MOST_AXES:
        raise Refused(f"an image of {len(shape)} axes, expected 3, of labels also 4")
    if header.GetPixelType() == itk.CommonEnums.IOPixel_COMPLEX:
        raise Refused(f"voxels of {COMPLEX}")
    return header


def stored_type(path: str | Path) -> np.dtype:
    """Type of a file's numbers as ITK reads them, after the slope of its header if it has one."""
    return _type_of(itk_header(path))


def _check_meta_image(path: Path, needed: int, bytes_each: int, shape: Sequence[int]) -> None:
    """Refuse a MetaImage whose voxels are not all there: ITK returns whatever is in memory in their place.

    Args:
        path: the header.
        needed: bytes that the voxels need.
        bytes_each: bytes of a number.
        shape: voxels along each axis.
    """
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        lines = iter(file.readline, b"")
        for line in lines:
            name, value = [*META_SEPARATOR.split(line.decode("latin-1"), maxsplit=1), ""][:2]
            fields[name.strip()] = value.strip()
            if "ElementDataFile" in fields:
                break
        else:
            raise Refused("no ElementDataFile in its header says where its voxels are; write it again")
        where, start = fields["ElementDataFile"], file.tell()
        names = _listed(where, b"".join(lines), len(shape)) if where.startswith("LIST") else _names(where, shape[-1])
    parts = [path] if where.upper() == "LOCAL" else [path.parent / name for name in names]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise Refused(ABSENT.format(missing[0]))
    if not fields.get("BinaryData", "True").startswith(META_TRUE):
        if len(parts) == 1:
            check_numbers_held(parts[0].read_bytes()[start if parts == [path] else 0 :], needed // bytes_each)
        return
    if not fields.get("CompressedData", "").startswith(META_TRUE):
        held = sum(part.stat().st_size for part in parts)
        check_held(held - (start if parts == [path] else 0), needed)
        return
    length = int(fields.get("CompressedDataSize", 0))
    if parts == [path] and not length:
        raise Refused("its voxels are compressed, and no CompressedDataSize says how long they are; write it again")
    check_packed(parts[0], start if parts == [path] else 0, length or None, needed)


def _check_nrrd(path: Path, needed: int) -> None:
    """Refuse a NRRD whose compressed voxels are damaged: ITK reads other numbers in their place."""
    with path.open("rb") as file:
        start = file.read(LONGEST_TEXT)
    head = NRRD_HEAD.match(start)
    pairs = (line.partition(b":") for line in (head[0] if head else start).splitlines())
    fields = {name.strip().lower(): value.strip().decode("latin-1") for name, _, value in pairs}
    where = fields.get(b"data file") or fields.get(b"datafile") or ""
    part = path.parent / where if where else path
    known = part.is_file() and bool(where or head) and not any(map(fields.get, NRRD_SKIPS))
    if known and fields.get(b"encoding") in ("gzip", "gz"):
        check_packed(part, 0 if where or head is None else head.end(), None, needed)


def _listed(where: str, text: bytes, axes: int) -> list[str]:
    """Files of a MetaImage's list, a line each. At other lists ITK ends the process, or reads what is in memory."""
    names = [line.strip() for line in text.decode().rstrip().splitlines()]
    if not all(names) or (names and not text.rstrip(b" \t").endswith(b"\n")):
        raise Refused("its list of files has an empty line, or the last line no end, at which ITK fails; correct it")
    if int(where[4:].strip(" dD") or 0) >= axes:
        raise Refused(f"its {where} is a list of files of all its axes; name the file alone")
    return names


def _names(where: str, slices: int) -> list[str]:
    """Files that hold a MetaImage's voxels: one, or several by a pattern such as ``slice%02d.raw 1 20 1``.

    What the pattern leaves out is as in ITK, which divides by a step of 0: the process would end there.
    """
    if "%" not in where:
        return [where]
    pattern, *numbers = where.split()
    first, last, step = [*map(int, numbers), None, None, None][:3]
    first = 1 if first is None else first
    if step is None:
        step = 1 if last is None else (last - first) // slices
    last = first + slices - 1 if last is None else last
    if step < 1:
        raise Refused(f"its list of slices has no step; write '{pattern} {first} {last} 1'")
    return [pattern % number for number in range(first, last + 1, step)[:slices]]


def header_note(path: Path) -> str:
    """A line about a NRRD or MetaImage header whose lengths are missing or in another unit, but are read as mm."""
    with path.open("rb") as file:
        text = file.read(LONGEST_TEXT).partition(b"\n\n")[0]
    words = b" ".join(UNITS.findall(text)).decode(errors="replace").replace('"', " ").lower().split()
    if found := sorted(OTHER_LENGTHS.intersection(words)):
        return f"its header has lengths in {found[0]}, which count as mm, as in ITK, ANTs and 3D Slicer; write it in mm"
    spacing = SPACING.search(text)
    return "" if spacing and (b"nan" not in spacing[0].lower() or CHANNELS.search(text)) else UNSPACED


def read_itk(path: Path, kind: str, held: int | None = None) -> Found:
    """Read a file with ITK, in double precision if it is a label or single precision may round its numbers.

    Args:
        path: the file, or the header.
        kind: ``image``, ``label`` or ``mask``.
        held: bytes of the file with the voxels, where that is another one, which ITK does not check.
    """
    with silent_libraries():  # what ITK prints about a damaged file is in its error too
        header = checked_header(path)
        if held is not None:
            check_held(held, header.GetImageSizeInBytes())
        number = itk.F if kind == "image" and np.can_cast(_type_of(header), np.float32) else itk.D
        images = itk.VectorImage[number, header.GetNumberOfDimensions()]
        reader = itk.ImageFileReader[images].New(FileName=str(path), ImageIO=header)
        with _kinds_named():
            reader.Update()
    image = reader.GetOutput()
    channels = itk.array_from_image(image).T
    channels = channels_first(channels[0]) if len(channels) == 1 else channels
    meta = image.GetMetaDataDictionary()
    segments = kind != "image" and bool(segment_numbers(meta))
    channels, kept = segments_of(channels, meta) if segments else (channels, {})
    note = header_note(path) if header.GetNameOfClass() in ("NrrdImageIO", "MetaImageIO") else ""
    return Found(channels, affine_of(image), _type_of(header), note, kept, segments)


def write_itk(voxels: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write ``(X, Y, Z)``."""
    if voxels.ndim != 3:
        raise Refused(f"{voxels.shape[-1]} volumes are written as .nii.gz")
    lps, spacing = RAS_TO_LPS @ affine, spacing_of(affine)
    image = itk.image_from_array(np.ascontiguousarray(voxels.T))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / spacing)))
    itk.imwrite(image, str(path))


def affine_of(image: Any) -> np.ndarray:
    """Voxel-to-world ``(4, 4)`` of an image of ITK, mm, RAS; of a slice or a time series, that of the axes in space."""
    axes = min(image.GetImageDimension(), 3)
    lps = np.eye(4)
    lps[:axes, :axes] = (itk.array_from_matrix(image.GetDirection()) * np.array(image.GetSpacing()))[:axes, :axes]
    lps[:axes, 3] = np.array(image.GetOrigin())[:axes]
    return RAS_TO_LPS @ lps


def _type_of(header: Any) -> np.dtype:
    name = itk.ImageIOBase.GetComponentTypeAsString(header.GetComponentType())
    kind = "f" if name in ("float", "double") else "u" if name.startswith("unsigned") else "i"
    return np.dtype(f"{kind}{header.GetComponentSize()}")
