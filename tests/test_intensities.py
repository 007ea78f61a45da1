"""The range of intensities that becomes 0 to 1: MONAI's percentiles where they say something, never empty."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from monai.transforms import ScaleIntensityRangePercentiles
from scipy.ndimage import affine_transform, binary_erosion
from scipy.spatial.transform import Rotation
from workflow_fixtures import SHAPE, SMALL, volume

from bundle import register
from bundle.data import RobustIntensityd
from bundle.formats import in_memory, load_image


def scaled(array, percentiles=(0.5, 99.5)):
    image = MetaTensor(
        torch.as_tensor(np.asarray(array, dtype=np.float32))[None], affine=torch.diag(torch.tensor([2.0, 2, 2, 1]))
    )
    result = RobustIntensityd("image", percentiles)({"image": image})["image"]
    assert isinstance(result, MetaTensor)
    assert torch.equal(result.affine, image.affine)
    assert result.dtype == torch.float32
    return result[0].numpy()


def smooth(shape=(24, 22, 20)):
    """Like soft tissue: between 0 and 1, no value twice."""
    return volume(0, shape)[0] / 100


def fan(shape=(24, 22, 20)):
    """Like ultrasound: grey values from 0 to 255, black beside the fan, which has dark and saturated places."""
    image = np.clip(np.round(400 * smooth(shape) - 80), 0, 255)
    image[:9] = 0
    return image


def sparse():
    """Like a needle: 99.7 % of the voxels are 0."""
    image = np.zeros((40, 40, 40))
    grid = np.stack(np.meshgrid(*[np.arange(40)] * 3, indexing="ij"))
    for centre in ((12, 20, 20), (25, 23, 17)):
        image += np.exp(-((grid - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(0) / 2.5)
    return np.where(image < 0.1, 0, image)


def organ():
    """A cropped organ, brighter than its background, which is most of the image."""
    return np.where(smooth() > 0.6, 500 + 100 * smooth(), 0)


NORMAL = {
    "smooth": smooth,
    "fan": fan,
    "many": lambda: smooth((110, 100, 100)),
    "CT": lambda: 2000 * smooth() - 1024,
    "CT, padded with -2000": lambda: np.where(smooth() < 0.3, -2000, 2000 * smooth() - 1024),
    "outlier": lambda: np.where(smooth() == smooth().max(), 1e9, smooth()),
    "two values": lambda: (smooth() > 0.5).astype(float),
}


@pytest.mark.parametrize("name", NORMAL)
def test_usual_images_are_scaled_as_monai_does(name):
    image = NORMAL[name]()
    expected = ScaleIntensityRangePercentiles(0.5, 99.5, 0.0, 1.0, clip=True)(np.asarray(image, dtype=np.float32)[None])
    np.testing.assert_array_equal(scaled(image), np.asarray(expected)[0])


def test_where_nearly_all_is_background_the_rest_is_the_range():
    image = sparse()
    assert np.percentile(image, 99.5) == 0
    result = scaled(image)
    np.testing.assert_array_equal(result == 0, image == 0)
    np.testing.assert_allclose(result, np.clip(image / np.sort(image.ravel())[-2], 0, 1), atol=1e-6)
    hot = image.copy()
    hot[0, 0, 0] = 1e9
    assert scaled(hot)[0, 0, 0] == 1
    np.testing.assert_allclose(np.delete(scaled(hot).ravel(), 0), np.delete(result.ravel(), 0), atol=0.02)
    dark = scaled(-image)
    np.testing.assert_allclose(dark, 1 - result, atol=1e-6)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.97])
@pytest.mark.parametrize("padding", [-32768.0, -10000.0, 65535.0, 1e9])
def test_padding_far_from_all_intensities_is_left_out_however_much_of_it_there_is(padding, share):
    inside = 2000 * smooth() - 1024
    outside = smooth() < np.quantile(smooth(), share)
    image = np.where(outside, padding, inside)
    result = scaled(image)
    low, high = np.percentile(inside[~outside], [0.5, 99.5])
    np.testing.assert_allclose(result[~outside], np.clip((inside[~outside] - low) / (high - low), 0, 1), atol=1e-5)
    assert np.unique(result[outside]) == [float(padding > 0)]


def tube(padding, annotation=None, shape=(96, 88, 24)):
    """Like CT: intensities from -1024 to 976 in a cylinder along z, padded beyond it, with text within."""
    image = 2000 * smooth(shape).astype(float) - 1024
    x, y = np.meshgrid(np.arange(shape[0]) - 47.5, np.arange(shape[1]) - 43.5, indexing="ij")
    image[np.hypot(x, y) > 40] = padding
    if annotation is not None:
        image[36:56, 20:28, 4:20] = annotation
    return image


def turned(image, order):
    """Resampled as by a rotation, padded with what it was padded with."""
    turn = Rotation.from_euler("z", 12, degrees=True).as_matrix()
    centre = (np.array(image.shape) - 1) / 2
    return affine_transform(image, turn, centre - turn @ centre, order=order, mode="constant", cval=image[0, 0, 0])


@pytest.mark.parametrize("factor", [1.0, -0.01])
@pytest.mark.parametrize(("padding", "order"), [(-32768, 1), (-10000, 1), (32767, 1), (-10000, 3), (12000, 3)])
def test_padding_that_was_interpolated_does_not_take_the_range(padding, order, factor):
    """Splines ring: no value of such padding repeats, and the lowest one is farther away than the padding."""
    body = binary_erosion(turned(tube(0), 0) != 0, iterations=4)
    image = turned(tube(padding), order) + (0.1 if order > 1 else 0) * smooth((96, 88, 24))
    result = scaled(factor * image)[body]
    assert np.ptp(np.percentile(result, [1, 99])) > 0.3  # 0.02 if the padding were an end of the range


def test_padding_of_two_values_is_left_out():
    image = tube(-32768, 32767)
    inside = image[np.abs(image) < 2000]
    low, high = np.percentile(inside, [0.5, 99.5])
    np.testing.assert_allclose(scaled(image), np.clip((image - low) / (high - low), 0, 1), atol=1e-5)


def test_bright_structures_with_soft_edges_are_no_padding():
    """A saturated vessel is as far from the noise around it, but does not lie at the border."""
    noise = np.random.default_rng(0).normal(10, 2, (40, 40, 40))
    x, y = np.meshgrid(np.arange(40) - 20, np.arange(40) - 20, indexing="ij")
    vessel = np.clip(400 - 60 * np.hypot(x, y), 0, 255)[..., None] * np.ones(40)
    vessel[..., :5] = vessel[..., -5:] = 0
    image = noise + vessel
    low, high = np.percentile(image, [0.5, 99.5])
    np.testing.assert_allclose(scaled(image), np.clip((image - low) / (high - low), 0, 1), atol=1e-5)


def test_what_a_sharp_mask_has_left_is_the_range():
    image, result = organ(), scaled(organ())
    inside = image[image > 0]
    assert inside.size < image.size / 2
    low, high = np.percentile(inside, [0.5, 99.5])
    np.testing.assert_allclose(result, np.clip((image - low) / (high - low), 0, 1), atol=1e-6)


def test_one_intensity_becomes_nothing():
    assert not scaled(np.full((4, 4, 4), 7.0)).any()
    one = np.zeros((4, 4, 4))
    one[1, 2, 3] = 5e-7
    np.testing.assert_array_equal(scaled(one), one > 0)


@pytest.mark.parametrize("bounds", [(50, 50), (99, 1), (-1, 99), (1, 101), (1,), (1, 2, 99)])
def test_percentiles_that_are_no_range_are_refused(bounds):
    with pytest.raises(ValueError, match="expected two between 0 and 100, in order"):
        scaled(smooth(), bounds)


@pytest.mark.parametrize("make", [sparse, fan, organ, NORMAL["CT, padded with -2000"]])
@pytest.mark.parametrize(("factor", "shift"), [(1500, 0), (2**-20, 0), (3.7, 20000), (1e5, -3e6)])
def test_another_unit_gives_the_same_image(make, factor, shift):
    image = make()
    unit = np.ptp(image)
    np.testing.assert_allclose(scaled(factor * image / unit + shift / unit), scaled(image), atol=2e-3)


def spot(place):
    """0.5 % of the voxels are not 0."""
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"))
    distance = ((grid - np.reshape((place, 9, 8), (3, 1, 1, 1))) ** 2).sum(0)
    return np.where(distance < 3.4, np.exp(-distance / 4), 0)


AFFINE = np.diag([5.0, 5, 5, 1])
STEPS = {**SMALL, "weights": None, "inner_lr": 0.0003}


@pytest.mark.parametrize("images", [(volume(0)[0], volume(1)[0]), (spot(10), spot(11))], ids=["usual", "sparse"])
def test_another_unit_gives_the_same_displacement(images):
    found = []
    for factor, shift, dtype in ((1, 0, np.float32), (1500, -2000, np.float32), (1e-30, 0, float), (1, 1e9, float)):
        pair = [((factor * np.asarray(image, dtype=float) + shift).astype(dtype), AFFINE) for image in images]
        found.append(register(*pair, **STEPS).displacement)
    assert np.abs(found[0]).max() > 0.1
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=0.01 * np.abs(found[0]).max())


@pytest.mark.parametrize(
    ("name", "dtype", "shift"),
    [
        ("a.nii", np.int32, 2**30),
        ("a.nii", np.int64, 2**40),
        ("a.nrrd", np.uint32, 3 * 10**9),
        ("a.mha", np.float64, 1e12),
        ("a.npy", np.float64, -1e9),
    ],
)
def test_single_precision_rounds_no_contrast_away(tmp_path, name, dtype, shift):
    values = (100 * smooth().astype(float) + shift).astype(dtype)
    if name.endswith("nii"):
        nib.save(nib.Nifti1Image(values, AFFINE, dtype=dtype), tmp_path / name)
    elif name.endswith("npy"):
        np.save(tmp_path / name, values)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(values.T.copy()), str(tmp_path / name))
    image = load_image(tmp_path / name)
    np.testing.assert_array_equal(image[0].numpy(), values)
    expected = scaled(values.astype(float) - shift)
    np.testing.assert_allclose(RobustIntensityd("a", (0.5, 99.5))({"a": image})["a"][0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    "values",
    [100 * smooth().astype(float), 1e5 + 1e3 * smooth().astype(float), np.full((4, 4, 4), 1e9), np.zeros((4, 4, 4))],
)
def test_usual_images_are_in_single_precision(values):
    assert in_memory((values, AFFINE), "fixed_image").dtype == torch.float32


def test_a_range_beyond_single_precision_is_a_range():
    np.testing.assert_allclose(scaled(6.4e38 * (smooth().astype(float) - 0.5)), scaled(smooth()), atol=1e-5)


def test_one_value_beyond_single_precision_is_a_number():
    image = smooth().astype(float)
    image[0, 0, 0] = 1e300
    found = in_memory((image, AFFINE), "fixed_image")
    result = RobustIntensityd("a", (0.5, 99.5))({"a": found})["a"][0].numpy()
    assert result[0, 0, 0] == 1
    np.testing.assert_allclose(result.ravel()[1:], scaled(smooth()).ravel()[1:], atol=2e-3)
