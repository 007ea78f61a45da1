"""From files to the network's grid: storage order, headers, labels, one interpolation, refusals."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter1d
from toys import Grid, apply, oblique_affine

from bundle.data import CheckPaird, InitialAlignmentd, IsotropicGridd, LabelChannelsd, SmoothToSpacingd, Timed
from bundle.formats import save_image
from bundle.geometry import apply_affine, centroids, initial_alignment, isotropic_grid, sample, voxel_grid
from bundle.system import hash_of_transforms

AXCODES = ("RAS", "LPS", "PIR", "SLA")


@pytest.fixture
def files(tmp_path, fixed_grid, moving_grid, save_nifti):
    """Pair on disk: images, and labels of two structures as channels without qform."""
    pair = {"pair_id": "pair"}
    for side, grid in (("fixed", fixed_grid), ("moving", moving_grid)):
        label = np.stack([grid.ball(grid.centre + offset, 4) for offset in ([0, 0, 0], [3, -2, 2])], axis=-1)
        pair[f"{side}_image"] = save_nifti(tmp_path / f"{side}.nii.gz", grid.smooth_image(), grid.affine)
        pair[f"{side}_label"] = save_nifti(tmp_path / f"{side}_label.nii.gz", label, grid.affine, qform=False)
    return pair


def restored(pair, folder, side, axcodes):
    """The pair with the files of one side in another storage order, the same in world space."""
    result = dict(pair)
    for kind in ("image", "label"):
        image = nib.load(pair[f"{side}_{kind}"])
        wanted = nib.orientations.axcodes2ornt(axcodes)
        turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted)
        result[f"{side}_{kind}"] = str(folder / f"{side}_{kind}_{axcodes}.nii.gz")
        turned = image.as_reoriented(turn)
        assert "".join(nib.aff2axcodes(turned.affine)) == axcodes
        nib.save(turned, result[f"{side}_{kind}"])
    return result


@pytest.mark.parametrize("alignment", ["center", "world"])
def test_storage_order_does_not_change_the_network_images(files, tmp_path, content, alignment):
    preprocessing = content("inference.yaml", "preprocessing", downsampling=1, pixdim=1.2, initial_alignment=alignment)
    reference = preprocessing(files)
    assert reference["fixed_image"].shape[1:] == reference["moving_image"].shape[1:]
    assert (reference["fixed_image"] - reference["moving_image"]).abs().mean() > 0.02
    for fixed_axes, moving_axes in zip(AXCODES, AXCODES[1:] + AXCODES[:1], strict=True):
        stored = restored(restored(files, tmp_path, "fixed", fixed_axes), tmp_path, "moving", moving_axes)
        result = preprocessing(stored)
        for key in ("fixed_image", "moving_image", "fixed_label", "moving_label"):
            torch.testing.assert_close(result[key].as_tensor(), reference[key].as_tensor(), atol=1e-4, rtol=0)
            np.testing.assert_allclose(result[key].affine, reference["fixed_image"].affine, atol=1e-4)


def test_network_grid_is_isotropic_ras_and_padded(files, content):
    fixed = content("inference.yaml", "preprocessing", pixdim=1.2, size_divisor=4, downsampling=3)(files)["fixed_image"]
    np.testing.assert_allclose(fixed.pixdim, 1.2, atol=1e-4)
    assert "".join(nib.aff2axcodes(fixed.affine.numpy())) == "RAS"
    assert all(size % 12 == 0 for size in fixed.shape[1:])
    assert fixed.shape[0] == 1


def test_small_image_is_padded_to_what_the_deepest_level_needs(files, content):
    fixed = content("inference.yaml", "preprocessing", pixdim=10.0, size_divisor=8, downsampling=3)(files)[
        "fixed_image"
    ]
    assert fixed.shape == (1, 48, 48, 48)


def test_intensities_are_between_the_percentiles(files, content):
    result = content("inference.yaml", "preprocessing", pixdim=1.2)(files)
    for side in ("fixed", "moving"):
        assert 0 <= result[f"{side}_image"].min() < 0.1
        assert 0.9 < result[f"{side}_image"].max() <= 1


def test_every_network_voxel_shows_the_fixed_image_at_its_world_position(files, content, fixed_grid):
    result = content("inference.yaml", "preprocessing", pixdim=0.8, downsampling=1)(files)
    network = Grid(result["fixed_image"].affine.numpy(), result["fixed_image"].shape[1:])
    voxels = apply(np.linalg.inv(fixed_grid.affine), network.world())
    inside = ((voxels >= 0) & (voxels <= np.reshape(fixed_grid.shape, (3, 1, 1, 1)) - 1)).all(0)
    low, high = np.percentile(fixed_grid.smooth_image(), [0.5, 99.5])
    expected = np.clip((network.smooth_image(centre=fixed_grid.centre) - low) / (high - low), 0, 1)
    # Trilinear interpolation misses |f''| h^2 / 8 per axis: 0.02 for waves of 4 mm per radian on 1.7 mm voxels.
    assert inside.mean() > 0.2
    assert np.abs(result["fixed_image"][0].numpy() - expected)[inside].max() < 0.03


@pytest.mark.parametrize("mode", ["center", "world", "none"])
def test_moving_image_is_interpolated_once(files, content, fixed_grid, moving_grid, mode):
    # Spacings are coarser than 0.8 mm, so nothing is smoothed and one interpolation explains every voxel.
    unpadded = {"size_divisor": 1, "downsampling": 1}
    result = content("inference.yaml", "preprocessing", pixdim=0.8, initial_alignment=mode, **unpadded)(files)
    image = moving_grid.smooth_image()
    low, high = np.percentile(image, [0.5, 99.5])
    normalised = torch.as_tensor(np.clip((image - low) / (high - low), 0, 1), dtype=torch.float32)[None]
    start = initial_alignment(mode, fixed_grid.affine, fixed_grid.shape, moving_grid.affine, moving_grid.shape)
    network = result["fixed_image"]
    to_moving = np.linalg.inv(moving_grid.affine) @ start @ network.affine.numpy()
    # Beyond the volume its border is repeated.
    direct = sample(normalised, apply_affine(to_moving, voxel_grid(network.shape[1:])), padding_mode="border")
    assert direct.std() > 0.1
    # float32 coordinates of some 100 mm put a sample 1e-5 mm aside.
    torch.testing.assert_close(result["moving_image"].as_tensor(), direct, atol=1e-3, rtol=0)
    np.testing.assert_allclose(result["initial_alignment"], start, atol=1e-6)


def test_moving_label_follows_its_image(files, content, fixed_grid):
    result = content("inference.yaml", "preprocessing", pixdim=0.8, initial_alignment="center")(files)
    for side in ("fixed", "moving"):
        label = result[f"{side}_label"]
        found = centroids(label.as_tensor(), label.affine.numpy())
        # In the fixed frame: aligned by their centres, both labels are balls about the same points.
        np.testing.assert_allclose(found, fixed_grid.centre + np.array([[0, 0, 0], [3, -2, 2]]), atol=0.25)
        assert label.min() >= 0
        assert label.max() <= 1
    assert result["structures"] == [0, 1]


def test_chosen_structures_are_the_network_s_and_native_labels_stay_whole(files, content, fixed_grid):
    result = content("inference.yaml", "preprocessing", pixdim=0.8, structures=[1])(files)
    found = centroids(result["fixed_label"].as_tensor(), result["fixed_label"].affine.numpy())
    np.testing.assert_allclose(found, [fixed_grid.centre + [3, -2, 2]], atol=0.25)
    assert result["moving_label"].shape[0] == 1
    assert result["native_moving_label"].shape[0] == 2


def test_labels_with_an_sform_only_lie_on_their_image(files, content, fixed_grid, moving_grid):
    header = nib.load(files["fixed_label"]).header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (0, 1)
    result = content("inference.yaml", "preprocessing", pixdim=1.2)(files)
    for side, grid in (("fixed", fixed_grid), ("moving", moving_grid)):
        label = result[f"native_{side}_label"]
        np.testing.assert_allclose(label.affine, grid.affine, atol=1e-4)
        found = centroids(label.as_tensor(), label.affine.numpy())
        np.testing.assert_allclose(found, grid.centre + np.array([[0, 0, 0], [3, -2, 2]]), atol=0.25)


def test_native_images_are_the_voxels_of_the_files(files, content, moving_grid):
    result = content("inference.yaml", "preprocessing", pixdim=2.5)(files)
    np.testing.assert_array_equal(result["native_moving_image"][0], moving_grid.smooth_image())
    assert set(np.unique(result["native_moving_label"])) == {0, 1}
    assert result["seconds_preprocessing"] > 0


@pytest.fixture
def masked_files(files, tmp_path, fixed_grid, moving_grid, save_nifti):
    """The pair with a mask per image: a ball of 6 mm off its centre, 255 inside as tools write it."""
    for side, grid in (("fixed", fixed_grid), ("moving", moving_grid)):
        mask = 255 * grid.ball(grid.centre + [2, -1, 1], 6)
        files[f"{side}_mask"] = save_nifti(tmp_path / f"{side}_mask.nii.gz", mask, grid.affine)
    return files


def test_masks_follow_their_images(masked_files, content, fixed_grid):
    result = content("inference.yaml", "preprocessing", pixdim=0.8, initial_alignment="center")(masked_files)
    for side in ("fixed", "moving"):
        mask = result[f"{side}_mask"]
        assert mask.shape == result["fixed_image"].shape
        np.testing.assert_allclose(mask.affine, result["fixed_image"].affine, atol=1e-4)
        found = centroids(mask.as_tensor(), mask.affine.numpy())
        np.testing.assert_allclose(found, [fixed_grid.centre + [2, -1, 1]], atol=0.25)
        assert (mask.min(), mask.max()) == (0, 1)
    assert not any("mask" in key for key in result if key.startswith("native"))


def test_beyond_the_moving_image_its_mask_is_zero(masked_files, content, tmp_path, moving_grid, save_nifti):
    ones = save_nifti(tmp_path / "ones.nii.gz", np.ones(moving_grid.shape, np.uint8), moving_grid.affine)
    unpadded = {"size_divisor": 1, "downsampling": 1, "initial_alignment": "center"}
    preprocessing = content("inference.yaml", "preprocessing", pixdim=0.8, **unpadded)
    result = preprocessing(masked_files | {"moving_mask": ones})
    network = Grid(result["fixed_image"].affine.numpy(), result["fixed_image"].shape[1:])
    to_moving = np.linalg.inv(moving_grid.affine) @ result["initial_alignment"]
    voxels, shape = apply(to_moving, network.world()), np.reshape(moving_grid.shape, (3, 1, 1, 1))
    inside = ((voxels >= 0.01) & (voxels <= shape - 1.01)).all(0)
    beyond = ((voxels < -1) | (voxels > shape)).any(0)
    mask = result["moving_mask"][0].numpy()
    assert min(inside.mean(), beyond.mean()) > 0.01
    np.testing.assert_allclose(mask[inside], 1, atol=1e-4)
    assert not mask[beyond].any()


def test_training_pairs_keep_their_masks(masked_files, content):
    result = content("train.yaml", "train::preprocessing", pixdim=1.2)(masked_files)
    assert result["fixed_mask"].shape == result["moving_mask"].shape == result["fixed_image"].shape
    # What is kept on disk is that of the setting.
    made = [content("train.yaml", "train::preprocessing", field_of_view=value) for value in (False, True)]
    assert hash_of_transforms([made[0]]) != hash_of_transforms([made[1]])


def test_missing_masks_are_derived_when_asked(files, content):
    assert "fixed_mask" not in content("inference.yaml", "preprocessing", pixdim=2.0)(files)
    result = content("inference.yaml", "preprocessing", pixdim=2.0, field_of_view=True)(files)
    # The toys fill their grid: the fixed mask is ones, the moving one too wherever there is a moving image.
    assert (result["fixed_mask"] > 0.99).float().mean() > 0.95
    assert result["moving_mask"].max() > 0.99


@pytest.mark.parametrize(
    ("mask", "problem"),
    [
        (torch.ones(1, 5, 6, 7), "fixed_mask: the mask is 5 x 6 x 7 and its image 17 x 21 x 14; give both one grid"),
        (torch.zeros(1, 17, 21, 14), "fixed_mask: the mask is empty, every value is 0; leave it out"),
        (torch.full((1, 17, 21, 14), torch.nan), "fixed_mask: the mask has NaN or infinite values"),
        (torch.ones(2, 17, 21, 14), "fixed_mask: a mask of 2 channels, expected one"),
    ],
)
def test_check_refuses_masks_that_fit_no_image(fixed_grid, moving_grid, mask, problem):
    mask = MetaTensor(mask, affine=fixed_grid.affine)
    with pytest.raises(ValueError, match=f"^pair p7: {problem}"):
        CheckPaird()(loaded(fixed_grid, moving_grid, fixed_mask=mask))


def test_check_refuses_a_mask_that_lies_elsewhere(fixed_grid, moving_grid):
    elsewhere = fixed_grid.affine.copy()
    elsewhere[:3, 3] += [3, 0, 0]
    mask = MetaTensor(torch.ones(1, *fixed_grid.shape), affine=elsewhere)
    with pytest.raises(ValueError, match="fixed_mask: the mask lies up to 3 mm from its image by their affines"):
        CheckPaird()(loaded(fixed_grid, moving_grid, fixed_mask=mask))


def loaded(fixed_grid, moving_grid, **changes):
    data = {"pair_id": "p7"}
    for side, grid in (("fixed", fixed_grid), ("moving", moving_grid)):
        data[f"{side}_image"] = MetaTensor(torch.as_tensor(grid.smooth_image())[None], affine=grid.affine)
    return {**data, **changes}


def test_check_names_every_problem_of_a_pair_at_once(fixed_grid, moving_grid):
    pair = loaded(fixed_grid, moving_grid, moving_label=MetaTensor(torch.ones(1, 5, 6, 7)))
    pair["fixed_image"][0, 3, 3, 3] = torch.nan
    with pytest.raises(ValueError) as raised:
        CheckPaird()(pair)
    message = str(raised.value)
    assert message.startswith("pair p7: fixed_image: 1 of 4998 values are NaN or infinite")
    assert "moving_label: the label is 5 x 6 x 7 and its image 21 x 16 x 20; give both one grid" in message


def test_check_refuses_planar_and_empty_images(fixed_grid, moving_grid):
    planar = MetaTensor(torch.rand(1, 20, 30, 1), affine=np.eye(4))
    with pytest.raises(ValueError, match="moving_image: 20 x 30 x 1 voxels, a single slice, expected a volume"):
        CheckPaird()(loaded(fixed_grid, moving_grid, moving_image=planar))
    empty = MetaTensor(torch.zeros(1, 5, 6, 7), affine=np.eye(4))
    with pytest.raises(ValueError, match="fixed_image: empty image"):
        CheckPaird()(loaded(fixed_grid, moving_grid, fixed_image=empty))


def test_check_takes_planar_images_as_volumes_of_one_slice():
    def pair(*shape):
        return {
            "pair_id": "p",
            "fixed_image": MetaTensor(torch.rand(1, 20, 30, 1), affine=np.eye(4)),
            "moving_image": MetaTensor(torch.rand(1, *shape), affine=np.eye(4)),
        }

    planar = pair(40, 20, 1)
    assert CheckPaird(spatial_dims=2)(planar)["moving_image"] is planar["moving_image"]
    with pytest.raises(ValueError, match="pair p: moving_image: 40 x 1 x 20 voxels, expected 40 x 20 x 1: the slice"):
        CheckPaird(spatial_dims=2)(pair(40, 1, 20))


def label_pair(fixed, moving):
    return {
        "pair_id": "p",
        "fixed_label": MetaTensor(torch.as_tensor(fixed), affine=np.diag([2.0, 1, 1, 1])),
        "moving_label": MetaTensor(torch.as_tensor(moving), affine=np.eye(4)),
    }


def test_integer_maps_get_a_channel_per_value_of_either():
    fixed, moving = torch.zeros(1, 3, 4, 5), torch.zeros(1, 3, 4, 5)
    fixed[0, 0, 0, :2], moving[0, 1, 1, 1], moving[0, 2, 2, 2] = 7, 7, 3
    result = LabelChannelsd()(label_pair(fixed, moving))
    assert result["structures"] == [3, 7]
    assert result["fixed_label"].sum((1, 2, 3)).tolist() == [0, 2]
    assert result["moving_label"].sum((1, 2, 3)).tolist() == [1, 1]
    np.testing.assert_array_equal(result["fixed_label"].affine, np.diag([2, 1, 1, 1]))


def test_channels_are_made_binary_and_cut_to_the_shared_ones():
    result = LabelChannelsd()(label_pair(5 * torch.ones(4, 2, 2, 2), torch.ones(3, 2, 2, 2)))
    assert result["structures"] == [0, 1, 2]
    assert result["fixed_label"].unique().tolist() == [1]
    assert result["fixed_label"].shape == result["moving_label"].shape == (3, 2, 2, 2)


def numbered(channels):
    """Label of which channel ``k`` has ``k`` voxels: channel 0 is empty."""
    label = torch.zeros(channels, 2, 3, 4)
    for k in range(channels):
        label[k].view(-1)[:k] = 1
    return label


def test_chosen_channels_come_in_the_order_they_are_named():
    result = LabelChannelsd([3, 0, 1])(label_pair(numbered(6), 2 * numbered(4)))
    assert result["structures"] == [3, 0, 1]
    for side in ("fixed", "moving"):
        assert result[f"{side}_label"].sum((1, 2, 3)).tolist() == [3, 0, 1]
    np.testing.assert_array_equal(result["fixed_label"].affine, np.diag([2, 1, 1, 1]))


def test_chosen_values_of_integer_maps_come_in_the_order_they_are_named():
    fixed, moving = torch.zeros(1, 3, 4, 5), torch.zeros(1, 3, 4, 5)
    fixed[0, 0, 0, :2], moving[0, 1, 1, 1], moving[0, 2, 2, 2] = 7, 7, 3
    result = LabelChannelsd((7, 5))(label_pair(fixed, moving))  # 5 is in neither
    assert result["structures"] == [7, 5]
    assert result["fixed_label"].sum((1, 2, 3)).tolist() == [2, 0]
    assert result["moving_label"].sum((1, 2, 3)).tolist() == [1, 0]


def test_a_chosen_channel_that_a_label_lacks_is_empty():
    result = LabelChannelsd([1, 3])(label_pair(numbered(6), numbered(2)))
    assert result["structures"] == [1, 3]
    assert result["fixed_label"].sum((1, 2, 3)).tolist() == [1, 3]
    assert result["moving_label"].sum((1, 2, 3)).tolist() == [1, 0]


def test_chosen_channels_that_no_pair_has_are_refused():
    with pytest.raises(
        ValueError,
        match=r"pair p: none of the structures \[2, 4\] \(channels, counted from 0\) is in both labels: "
        "fixed_label has 6 channels and moving_label 2",
    ):
        LabelChannelsd([2, 4])(label_pair(numbered(6), numbered(2)))


@pytest.mark.parametrize("structures", [[0, 1], [4]])
def test_chosen_values_that_are_background_or_in_neither_map_are_refused(structures):
    pair = label_pair(torch.ones(1, 2, 2, 2), torch.full((1, 2, 2, 2), 3.0))
    with pytest.raises(ValueError, match=r"pair p: the structures are \[.*\] but .* the values 1, 3 on the background"):
        LabelChannelsd(structures)(pair)


@pytest.mark.parametrize("structures", [[], [1, 1], [-1], [0.5], "[0, 1]", 1])
def test_structures_that_name_none_are_refused(structures):
    with pytest.raises(ValueError, match="structures is .*; expected different channel numbers"):
        LabelChannelsd(structures)


def test_a_map_against_channels_is_refused():
    with pytest.raises(ValueError, match=r"fixed_label has 1 channel\(s\) and moving_label 3"):
        LabelChannelsd()(label_pair(torch.ones(1, 2, 2, 2), torch.ones(3, 2, 2, 2)))


def test_two_empty_maps_are_refused():
    with pytest.raises(ValueError, match="pair p: fixed_label and moving_label are empty"):
        LabelChannelsd()(label_pair(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)))


def test_a_pair_with_one_label_passes_unchanged():
    pair = label_pair(torch.ones(1, 2, 2, 2), torch.ones(1, 2, 2, 2))
    del pair["moving_label"]
    assert LabelChannelsd()(pair) == pair


def test_initial_alignment_stamps_the_frame_and_leaves_the_voxels(fixed_grid, moving_grid):
    pair = loaded(fixed_grid, moving_grid)
    pair["moving_label"], pair["moving_mask"] = pair["moving_image"].clone(), pair["moving_image"].clone()
    result = InitialAlignmentd("center")(pair)
    shift = result["initial_alignment"][:3, 3]
    np.testing.assert_allclose(shift, moving_grid.centre - fixed_grid.centre, atol=1e-6)
    for key in ("moving_image", "moving_label", "moving_mask"):
        assert torch.equal(result[key].as_tensor(), pair[key].as_tensor())
        np.testing.assert_allclose(result[key].affine[:3, 3], moving_grid.affine[:3, 3] - shift, atol=1e-6)
    np.testing.assert_array_equal(pair["moving_image"].affine, moving_grid.affine)
    assert result["fixed_image"] is pair["fixed_image"]


def test_smoothing_blurs_finer_axes_by_the_difference_of_the_resolutions():
    image = torch.rand(1, 15, 16, 17, generator=torch.Generator().manual_seed(0))
    affine = np.diag([0.5, 2.0, 1.0, 1.0])
    result = SmoothToSpacingd("image", pixdim=1.5)({"image": MetaTensor(image, affine=affine)})["image"]
    fwhm = 2.3548200450309493
    expected = gaussian_filter1d(image[0].numpy(), np.sqrt(1.5**2 - 0.5**2) / fwhm / 0.5, axis=0, mode="nearest")
    expected = gaussian_filter1d(expected, np.sqrt(1.5**2 - 1.0**2) / fwhm / 1.0, axis=2, mode="nearest")
    np.testing.assert_allclose(result[0], expected, atol=1e-5)
    np.testing.assert_array_equal(result.affine, affine)


def test_smoothing_leaves_coarser_images_alone():
    image = MetaTensor(torch.rand(1, 5, 6, 7), affine=np.diag([2.0, 3.0, 2.5, 1.0]))
    assert torch.equal(SmoothToSpacingd("image", pixdim=2.0)({"image": image})["image"], image)
    assert SmoothToSpacingd("image", pixdim=2.0, allow_missing_keys=True)({}) == {}


def test_smoothing_refuses_a_spacing_that_is_none():
    with pytest.raises(ValueError, match="pixdim is 0.0; expected the spacing"):
        SmoothToSpacingd("image", pixdim=0.0)


def test_timed_notes_the_seconds_of_its_stage():
    assert Timed(lambda data: {**data, "b": 2}, "loading")({"a": 1}).keys() == {"a", "b", "seconds_loading"}


def test_a_label_in_single_precision_lies_on_its_image_in_double(tmp_path, content):
    """Of NRRD and NIfTI with the same oblique, thick slices, the network's grids lay half a slice apart in silence."""
    pair = {"pair_id": "pair"}
    for side in ("fixed", "moving"):
        grid = Grid(oblique_affine([0.9, 0.9, 5.0], [20, -15, 8], [10, -25, 33.3], single=False), (24, 26, 12))
        ball = grid.ball(grid.centre, 8)
        pair[f"{side}_image"], pair[f"{side}_label"] = (str(tmp_path / f"{side}{end}") for end in (".nrrd", ".nii.gz"))
        save_image(ball[None].astype(np.float32), grid.affine, np.dtype(np.float32), pair[f"{side}_image"])
        nib.save(nib.Nifti1Image(ball.astype(np.uint8), grid.affine), pair[f"{side}_label"])
    result = content("inference.yaml", "preprocessing", pixdim=0.9, downsampling=1)(pair)
    for side in ("fixed", "moving"):
        torch.testing.assert_close(result[f"{side}_label"].as_tensor(), result[f"{side}_image"].as_tensor())


def test_the_network_s_grid_does_not_depend_on_the_precision_of_the_header():
    """36 voxels of 0.4 mm are 14 mm from first to last, 17.5 of 0.8 mm, which rounding makes one more or less."""
    exact = oblique_affine([0.4, 1.5, 5.0], [20, -15, 8], [10, -25, 33.3], single=False)
    image = torch.rand(1, 36, 9, 5, generator=torch.Generator().manual_seed(0))
    grids = [
        IsotropicGridd("image", pixdim=0.8)({"image": MetaTensor(image, affine=torch.as_tensor(affine))})["image"]
        for affine in (exact, exact * (1 - 1e-7), exact.astype(np.float32).astype(float))
    ]
    assert grids[0].shape == (1, 19, 16, 26)
    np.testing.assert_allclose(grids[0].affine[:3, :3], exact[:3, :3] / [0.4, 1.5, 5.0] * 0.8, atol=1e-12)
    np.testing.assert_allclose(grids[0].affine[:3, 3], exact[:3, 3], atol=1e-12)
    for grid in grids[1:]:
        torch.testing.assert_close(grid.as_tensor(), grids[0].as_tensor(), atol=1e-4, rtol=0)
        np.testing.assert_allclose(grid.affine, grids[0].affine, atol=1e-5)


def test_the_network_s_grid_covers_a_sheared_image():
    affine = np.array([[2.0, 0, 1, 5], [0, 2, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]])
    grid, shape = isotropic_grid(affine, (6, 5, 4), 1.0)
    np.testing.assert_allclose(grid, [[1, 0, 0, 5], [0, 1, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]], atol=1e-12)
    assert shape == (14, 9, 13)
