"""NRRD, MetaImage, single files of DICOM, and whatever else ITK knows."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from bundle.formats.arrays import Found, channels_first
from bundle.geometry import RAS_TO_LPS
from bundle.geometry.affines import spacing_of
from bundle.system.extras import itk
from bundle.system.files import silent_libraries
from bundle.system.limits import Refused, check_declared, regular_file

DETACHED_SUFFIXES = (".nhdr", ".mhd", ".hdr")
"""Headers whose voxels are in another file."""
MOST_AXES = 4
ITK_TYPES = ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")
"""Of voxels that ITK in Python writes."""


def itk_header(path: str | Path) -> Any:
    """ITK's reader of an image, which has read the header.

    Raises:
        Refused: when no reader knows the file.
        RuntimeError: when the header cannot be read.
    """
    header = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    if header is None:
        raise Refused("cannot be read, damaged or not an image")
    header.SetFileName(str(path))
    header.ReadImageInformation()
    return header


def checked_header(path: Path) -> Any:
    """The same of a file that asks for no more than it can hold, or than is read.

    Raises:
        Refused: naming the size that it declares and the limit.
    """
    header = itk_header(regular_file(path))
    shape = tuple(header.GetDimensions(axis) for axis in range(header.GetNumberOfDimensions()))
    if header.GetNameOfClass() == "GDCMImageIO" and shape[2:] > (1,):
        raise Refused("a DICOM file of several frames; name its folder instead, so that their places are read")
    detached = str(path).lower().endswith(DETACHED_SUFFIXES)
    components = header.GetNumberOfComponents()
    check_declared((*shape, components), header.GetComponentSize(), None if detached else path)
    if len(shape) > MOST_AXES:
        raise Refused(f"an image of {len(shape)} axes, expected 3, of labels also 4")
    if header.GetPixelType() == itk.CommonEnums.IOPixel_COMPLEX:
        raise Refused("voxels of complex numbers, expected one number each")
    return header


def stored_type(path: str | Path) -> np.dtype:
    """Type of the numbers in a file that ITK reads: after the slope of its header, where it has one."""
    return _type_of(itk_header(path))


def read_itk(path: Path, kind: str) -> Found:
    """Read a file by ITK; the numbers of a label in double precision."""
    with silent_libraries():  # what ITK prints of a damaged file is in its error too
        header = checked_header(path)
        number = itk.F if kind == "image" else itk.D
        images = itk.VectorImage[number, header.GetNumberOfDimensions()]
        reader = itk.ImageFileReader[images].New(FileName=str(path))
        reader.Update()
    image = reader.GetOutput()
    channels = itk.array_from_image(image).T
    channels = channels_first(channels[0]) if len(channels) == 1 else channels
    if kind != "image":
        channels = _segments(channels, image.GetMetaDataDictionary())
    return Found(channels, _affine(image), _type_of(header))


def _segments(layers: np.ndarray, meta: Any) -> np.ndarray:
    """A channel per segment of 3D Slicer, where its segments overlap and so lie in layers; anything else as it is."""
    numbers = list(itertools.takewhile(lambda number: meta.HasKey(f"Segment{number}_ID"), itertools.count()))
    if len(layers) == 1 or not numbers:
        return layers
    places = ((int(meta[f"Segment{k}_Layer"]), float(meta[f"Segment{k}_LabelValue"])) for k in numbers)
    return np.stack([layers[layer] == value for layer, value in places]).astype(float)


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


def _affine(image: Any) -> np.ndarray:
    axes = min(image.GetImageDimension(), 3)
    lps = np.eye(4)
    lps[:axes, :axes] = (itk.array_from_matrix(image.GetDirection()) * np.array(image.GetSpacing()))[:axes, :axes]
    lps[:axes, 3] = np.array(image.GetOrigin())[:axes]
    return RAS_TO_LPS @ lps


def _type_of(header: Any) -> np.dtype:
    name = itk.ImageIOBase.GetComponentTypeAsString(header.GetComponentType())
    kind = "f" if name in ("float", "double") else "u" if name.startswith("unsigned") else "i"
    return np.dtype(f"{kind}{header.GetComponentSize()}")
