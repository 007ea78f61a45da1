"""From the folder of a DICOM series to its volume."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bundle.dicom import Series, one_volume
from bundle.dicom.files import is_dicom, is_named, segmentations_in, start_of
from bundle.dicom.pixels import as_itk_reads
from bundle.formats.itk_files import stored_type
from bundle.formats.voxels import Found
from bundle.system.errors import DataWarning, brief
from bundle.system.limits import Refused, check_declared, regular_file
from bundle.system.on_demand import itk


def is_dicom_image(path: Path) -> bool:
    """Whether a path is a folder, or a file that is DICOM by its name or content."""
    return path.is_dir() or (path.is_file() and (is_named(path) or is_dicom(start_of(regular_file(path)))))


def read_volume(folder: Path, kind: str) -> Found:
    """Read the one volume in a folder or file of DICOM, with each slice's slope and intercept applied.

    Slices are ordered and placed by their positions. MONOCHROME1 shows high numbers dark: its stored numbers are
    inverted, as in every reader based on ITK.

    Args:
        folder: as in :func:`bundle.dicom.read_series`; or a file: of several frames, or of one slice, a planar image.
        kind: ``image``, ``label`` or ``mask``; the values of an image beside a segmentation are no label.

    Returns:
        One channel. Nothing of the headers is kept in ``meta``.

    Raises:
        Refused: when the folder has no such volume, or it is larger than the limit.

    Warns:
        DataWarning: about slices that may be missing, and doubtful headers.
    """
    try:
        series = one_volume(folder)
    except ValueError as error:
        raise Refused(str(error)) from error
    if kind != "image" and (beside := segmentations_in(folder)):
        raise Refused(f"an image and {beside}, of which neither is read as a {kind}; convert the {beside} to NIfTI")
    columns, rows, slices = series.shape
    check_declared((columns, rows, slices // len(series.files)), 1, series.files[0])
    check_declared(series.shape, 1, None)
    for note in series.notes:
        warnings.warn(f"{folder}: {note}", DataWarning, stacklevel=2)
    try:
        with TemporaryDirectory() as copies:
            files, added = as_itk_reads(series.files, series.rescales, Path(copies))
            voxels = _voxels(series, files)
            if any(added):
                voxels = voxels + np.asarray(added, dtype=voxels.dtype)
            stored = _type_of(series, files[0], voxels)
    except RuntimeError as error:
        what = "its pixels cannot be read, damaged or compressed in a way that ITK does not know"
        raise Refused(f"{what} ({brief(error)}); decompress it") from error
    return Found(voxels[None], series.affine, stored)


def _voxels(series: Series, files: Sequence[Path]) -> np.ndarray:
    """``(X, Y, Z)``, slices in the order of the series."""
    names = [str(path) for path in files]
    whole = np.can_cast(stored_type(files[0]), np.float32)
    volume = itk.Image[itk.F if whole else itk.D, 3]
    if len(names) == 1:
        reader = itk.ImageFileReader[volume].New(FileName=names[0], ImageIO=itk.GDCMImageIO.New())
    else:
        reader = itk.ImageSeriesReader[volume].New(FileNames=names, ImageIO=itk.GDCMImageIO.New())
        # Uneven slices were refused earlier; by ITK's measure, rounded positions would be uneven too.
        reader.SetSpacingWarningRelThreshold(np.inf)
    reader.Update()
    voxels = itk.array_from_image(reader.GetOutput()).transpose(2, 1, 0)
    return voxels[..., list(series.frames)] if len(names) == 1 else voxels


def _type_of(series: Series, file: Path, voxels: np.ndarray) -> np.dtype:
    """Type that holds the values of all slices: that of the first slice, unless others need more."""
    if not series.whole_numbers or (voxels != np.rint(voxels)).any():
        return np.dtype(np.float32)
    first = stored_type(file)
    limits = np.iinfo(first) if first.kind in "iu" else np.finfo(first)
    return first if limits.min <= voxels.min() and voxels.max() <= limits.max else np.dtype(np.int32)
