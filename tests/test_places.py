"""Where files are: ITK is asked, through SimpleITK, about headers at random and about what is made of them."""

import io
import os
import warnings
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from toys import Grid

from bundle.formats import displacement_image, load_image, read_transform, save_image
from bundle.results import NativeOutputsd, SavePaird
from bundle.results.inverse import pair_transform
from bundle.system import DataWarning

sitk.ProcessObject.SetGlobalWarningDisplay(False)
SHAPE = (7, 6, 5)
LONGER = int(os.environ.get("LONGER", "1"))
"""Factor of the number of examples."""
UNITS = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001, 8: 1.0, 11: 0.001, 16 + 1: 1000.0}
at_random = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
Lengths = st.tuples(*[st.sampled_from([0.5, 0.9, 1.0, 1.7, 3.0])] * 3)
Offsets = st.tuples(*[st.sampled_from([0.0, -12.5, 40.0, 1e4])] * 3)


@st.composite
def affines(draw, lengths):
    """Axes in any order and direction, some turned."""
    axes = np.eye(3)[:, draw(st.permutations(range(3)))] * draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
    degrees = draw(st.sampled_from([(0, 0, 0), (12, -8, 20), (0, 0, 44)]))
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ axes * lengths
    affine[:3, 3] = draw(Offsets)
    return affine


@dataclass
class Header:
    """What a NIfTI header says of its place."""

    sform: np.ndarray
    qform: np.ndarray
    codes: tuple[int, int]
    pixdim: tuple[float, float, float] | None
    units: int

    def write(self, path, array):
        image = nib.Nifti1Image(array, np.eye(4))
        content = image.to_bytes()
        header = nib.Nifti1Header.from_fileobj(io.BytesIO(content))
        header.set_qform(self.qform, code=1)  # which writes pixdim
        header.set_sform(self.sform, code=1)
        header["qform_code"], header["sform_code"] = self.codes
        header["xyzt_units"] = self.units
        if self.pixdim is not None:
            header["pixdim"][1:4] = self.pixdim
        path.write_bytes(header.binaryblock + content[348:])
        return path


@st.composite
def headers(draw, units=None):
    lengths = draw(Lengths)
    qform = draw(affines(lengths))
    sform = draw(st.just(qform) | affines(lengths) | Lengths.flatmap(affines))
    sform = sform + draw(st.sampled_from([0.0, 0.0, 0.0, 0.2])) * np.eye(4, k=1) * [1, 1, 0, 0]
    codes = draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
    pixdim = draw(st.none() | st.none() | Lengths)
    return Header(sform, qform, codes, pixdim, units or draw(st.sampled_from([2, 2, 10, *UNITS])))


def itk_place(path):
    """Affine of a file by ITK, RAS; None where ITK refuses it."""
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        return None
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def loaded(path):
    """An image, and the warnings about it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image = load_image(path)
    return image, [str(one.message) for one in caught if one.category is DataWarning]


def apart(affine, other):
    """Largest distance of the corners of the grid under two affines, in voxels."""
    corners = np.stack(np.meshgrid(*((0, size - 1) for size in SHAPE), [1], indexing="ij")).reshape(4, -1)
    return np.linalg.norm((affine - other)[:3] @ corners, axis=0).max() / np.linalg.norm(affine[:3, :3], axis=0).min()


@settings(at_random, max_examples=100 * LONGER)
@given(headers())
def test_a_nifti_file_is_where_itk_says_and_other_readings_are_warned_of(tmp_path, header):
    path = header.write(tmp_path / "a.nii", np.ones(SHAPE, np.int16))
    image, said = loaded(path)
    ours, by_itk = np.asarray(image.affine), itk_place(path)
    # nibabel knows no units: its reading times these is what tools other than ITK's take.
    others = nib.load(path).affine
    others[:3] *= UNITS.get(header.units % 8, 1.0)
    if by_itk is None:
        np.testing.assert_allclose(ours, others, rtol=1e-6)
        assert len(said) == 1
        assert "sform is sheared, which ITK, ANTs and 3D Slicer refuse" in said[0]
    else:
        assert apart(ours, by_itk) < 2e-3
        assert said or apart(ours, others) < 0.11
        assert len(said) <= 1
    if header.codes[0] and header.codes[1] and header.pixdim is None and apart(header.sform, header.qform) < 1e-3:
        assert not said


def smooth(seed, shape=SHAPE):
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5, mode="wrap")
    return (100 + 900 * (noise - noise.min()) / np.ptp(noise)).astype(np.float32)


def results(folder, fixed, moving):
    """What is written of two files and the smooth field of a network, of up to a third of a voxel."""
    folder.mkdir(exist_ok=True)
    images = {f"native_{side}_image": loaded(path)[0] for side, path in (("fixed", fixed), ("moving", moving))}
    ddf = np.stack([smooth(seed) / 1500 - 0.37 for seed in (1, 2, 3)])
    centres = [Grid(np.asarray(image.affine), image.shape[1:]).centre for image in images.values()]
    alignment = np.eye(4)
    alignment[:3, 3] = centres[1] - centres[0]
    data = {
        **images,
        "pair_id": "pair",
        "fixed_image": images["native_fixed_image"],
        "initial_alignment": alignment,
        "pred": {"ddf": torch.as_tensor(ddf)},
        "metrics": {},
    }
    data = NativeOutputsd()(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        SavePaird._write({**data, "transform": pair_transform(data)}, folder)
    return data


def agree(ours, theirs):
    """Two images, brighter than 0 where they have data, are one; but where a voxel is at the border of the data."""
    both = (ours != 0) & (theirs != 0)
    np.testing.assert_allclose(ours[both], theirs[both], atol=1)  # of 1000 grey values
    assert ((ours != 0) != (theirs != 0)).mean() < 0.03


@settings(at_random, max_examples=15 * LONGER)
@given(st.sampled_from([1, 2, 3]).flatmap(lambda units: st.tuples(headers(units), headers(units))))
def test_simpleitk_makes_the_warped_image_of_the_files_as_they_are(tmp_path, pair):
    fixed, moving = (header.write(tmp_path / f"{seed}.nii", smooth(seed)) for seed, header in enumerate(pair))
    if itk_place(fixed) is None or itk_place(moving) is None:
        return
    results(tmp_path, fixed, moving)
    reference, image = sitk.ReadImage(str(fixed)), sitk.ReadImage(str(moving))
    written = nib.load(tmp_path / "warped_image.nii.gz").get_fdata()
    assert written.any()
    for name in ("transform.h5", "displacement.nii.gz"):
        path = str(tmp_path / name)
        if name.endswith("h5"):
            transform = sitk.ReadTransform(path)
        else:
            transform = sitk.DisplacementFieldTransform(sitk.ReadImage(path, sitk.sitkVectorFloat64))
        agree(written, sitk.GetArrayFromImage(sitk.Resample(image, reference, transform, sitk.sitkLinear)).T)
        assert apart(itk_place(tmp_path / "warped_image.nii.gz"), itk_place(fixed)) < 0.01


@pytest.mark.parametrize("offset", [1e4, 1e6, 1e7])
@pytest.mark.parametrize("shift", [0.0, 5e3])
def test_far_from_the_origin_the_result_is_the_same(tmp_path, offset, shift):
    """Coordinates of a tracker or a stage: whole millimetres that single precision holds, and voxels of 50 microns."""
    near = np.diag([0.0625, -0.0625, 0.125, 1.0])
    found = {}
    for name, place in (("near", 0.0), ("far", offset)):
        for side, seed, more in (("fixed", 4, 0.0), ("moving", 5, shift if place else 0.0)):
            affine = near.copy()
            affine[:3, 3] = place + more
            nib.save(nib.Nifti1Image(smooth(seed), affine), tmp_path / f"{name}_{side}.nii")
        found[name] = results(tmp_path / name, *(tmp_path / f"{name}_{side}.nii" for side in ("fixed", "moving")))
    for key in ("warped_image", "aligned_image"):
        torch.testing.assert_close(found["far"][key].as_tensor(), found["near"][key].as_tensor(), atol=0.05, rtol=0)
    # What is read again is what was meant.
    transform = read_transform(tmp_path / "far/transform.h5")
    field = read_transform(tmp_path / "far/displacement.nii.gz")
    points = torch.as_tensor(Grid(np.asarray(found["far"]["displacement"].affine), SHAPE).world())
    torch.testing.assert_close(transform(points), field(points), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("origin", "told"), [(2e5 + 0.3, 1), (2e5, 0), (300.3, 0)])
def test_a_place_that_nifti_cannot_keep_is_told(tmp_path, recwarn, origin, told):
    """At 200 m single precision has steps of 16 microns, most of a voxel of 20: results lay beside an image in NRRD."""
    affine = np.diag([0.02, 0.02, 0.02, 1.0]) + np.eye(4, k=3) * origin
    save_image(np.ones((1, 5, 6, 7), np.float32), affine, np.dtype(np.float32), tmp_path / "a.nii")
    off = apart(nib.load(tmp_path / "a.nii").affine, affine)
    assert (off > 0.1) == bool(told)
    assert sum("NIfTI keeps places in single precision" in str(one.message) for one in recwarn) == told


def test_a_sheared_result_is_refused_by_itk_rather_than_misplaced(tmp_path, fixed_grid):
    sheared = fixed_grid.affine.copy()
    sheared[0, 1] += 0.3
    nib.save(displacement_image(torch.zeros(3, *fixed_grid.shape), sheared), tmp_path / "a.nii")
    assert itk_place(tmp_path / "a.nii") is None
    with pytest.warns(DataWarning, match="its sform is sheared"):
        np.testing.assert_allclose(read_transform(tmp_path / "a.nii").parts[0].affine, sheared, atol=1e-6)
