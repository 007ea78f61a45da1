"""DICOM pairs of the tests, and what checks objects independently of the bundle."""

import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_toys import oblique_affine, write_series
from highdicom._standard_utils import check_required_attributes, get_iod_module_map, get_sop_class_iod_map

from bundle.dicom.series import read_series

FIXED_SHAPE, MOVING_SHAPE = (14, 11, 7), (12, 15, 9)
FIXED = oblique_affine((1.3, 0.9, 2.5), (-40.0, 25.0, 60.0), (12.0, -20.0, 33.0))
MOVING = oblique_affine((1.1, 1.6, 2.0), (10.0, -14.0, -25.0), (5.0, -30.0, 10.0))


def world(affine, voxels):
    """Points ``(n, 3)`` of voxels ``(n, 3)``."""
    return voxels @ affine[:3, :3].T + affine[:3, 3]


def points_inside(count=200, seed=0):
    """Random points of the fixed image, ``(n, 3)``, mm, RAS."""
    share = np.random.default_rng(seed).uniform(size=(count, 3))
    return world(FIXED, share * (np.array(FIXED_SHAPE) - 1))


@dataclass
class Pair:
    """A pair of series in two frames of reference and two studies of one patient."""

    folder: object

    def __post_init__(self):
        random = np.random.default_rng(1)
        self.voxels = {
            side: random.integers(0, 900, shape).astype(np.int16)
            for side, shape in (("fixed", FIXED_SHAPE), ("moving", MOVING_SHAPE))
        }
        write_series(self.folder / "fixed", self.voxels["fixed"], FIXED, SoftwareVersions="scanner")
        write_series(
            self.folder / "moving",
            self.voxels["moving"],
            MOVING,
            WindowCenter=450,
            WindowWidth=800,
            EchoTime=33.0,
            BodyPartExamined="PROSTATE",
            TriggerTime=5.0,
            SliceLocation=lambda number: float(number),
        )

    @cached_property
    def fixed(self):
        return read_series(self.folder / "fixed")

    @cached_property
    def moving(self):
        return read_series(self.folder / "moving")


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    return Pair(tmp_path_factory.mktemp("dicom"))


def written(made, path):
    """An object as a file has it."""
    made.save_as(path, enforce_file_format=True)
    return pydicom.dcmread(path)


def check_modules(read):
    """All attributes that the modules of the object's IOD require are there: highdicom's tables of the standard."""
    for module in get_iod_module_map()[get_sop_class_iod_map()[read.SOPClassUID]]:
        if module["usage"] == "M":
            check_required_attributes(read, module["key"])


def check_conformance(path):
    """dicom3tools finds no error."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy of dicom3tools is not installed")
    found = subprocess.run(["dciodvfy", path], capture_output=True, text=True)
    assert "Error" not in found.stdout + found.stderr, found.stdout + found.stderr


def itk_series(folder):
    """A folder read by ITK's own series reader."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()
