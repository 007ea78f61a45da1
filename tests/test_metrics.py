"""Metrics of a pair whose overlaps and distances are counted by hand."""

import json
import math
import warnings

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from toys import affine_ddf, apply, rigid

from bundle.evaluation import PairMetricsd, root_mean_square, target_registration_error
from bundle.evaluation.anatomy import map_metrics
from bundle.evaluation.metrics import normalised_cross_correlation
from bundle.evaluation.overlap import hausdorff_95
from bundle.evaluation.scored import scored_channels
from bundle.evaluation.table import metrics_row
from bundle.formats import read_landmarks
from bundle.geometry import ddf_to_displacement, lift_ddf
from bundle.registration import INITIAL_ALIGNMENT
from bundle.results import NativeOutputsd
from bundle.system import DataWarning
from bundle.system.configurations import load_configurations

SHAPE = (12, 10, 8)
AFFINE = np.diag([2.0, 1.0, 3.0, 1.0])


def test_target_registration_error_is_the_distance():
    errors = target_registration_error(np.array([[3.0, 4, 0], [1, 1, np.nan]]), np.zeros((2, 3)))
    assert errors[0] == 5
    assert np.isnan(errors[1])


def test_correlation_is_of_what_the_mask_holds():
    image, other = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(SHAPE)
    mask[2:7], mask[7] = 1, 0.4
    expected = np.corrcoef(image[2:7].flatten(), other[2:7].flatten())[0, 1]
    assert normalised_cross_correlation(image, other, mask) == pytest.approx(expected, abs=1e-6)
    assert normalised_cross_correlation(image, other) != pytest.approx(expected, abs=1e-3)
    assert math.isnan(normalised_cross_correlation(image, other, 0 * mask))


@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 0.7])
def test_a_constant_image_correlates_with_nothing(value):
    image = torch.rand(40, 40, 40, generator=torch.Generator().manual_seed(0))
    assert math.isnan(normalised_cross_correlation(torch.full_like(image, value), image))


def test_root_mean_square_is_over_the_finite_errors():
    assert root_mean_square([3.0, np.nan, 4.0]) == pytest.approx(math.sqrt(12.5))
    assert math.isnan(root_mean_square([np.nan]))
    assert math.isnan(root_mean_square([]))


@pytest.mark.parametrize(
    "text, voxels",
    [
        ("x,y,z\n1,2,3\n4.5,-5,6\n", False),
        ("x, y, z, name\n1,2,3,apex\n4.5,-5,6,base\n", False),
        ("i,j,k\n1,2,3\n4.5,-5,6\n", True),
        ("1,2,3\n\n4.5,-5,6\n", True),
    ],
)
def test_landmarks_are_millimetres_or_voxels_by_their_header(tmp_path, fixed_grid, text, voxels):
    path = tmp_path / "points.csv"
    path.write_text(text)
    points = np.array([[1, 2, 3], [4.5, -5, 6]])
    expected = apply(fixed_grid.affine, points.T).T if voxels else points
    np.testing.assert_allclose(read_landmarks(path, fixed_grid.affine).points, expected, atol=1e-9)


@pytest.mark.parametrize("text", ["a,b,c\n1,2,3\n", "1,2\n3,4\n5,6\n", "1,2,3\n4,5\n", "x,y,z\n", "1|2|3\n"])
def test_a_file_without_points_is_refused(tmp_path, text):
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"points.csv: expected numbers in every row below one of the headers i,j,k"):
        read_landmarks(path, np.eye(4))


def box(start, stop, value=1.0):
    label = torch.zeros(1, *SHAPE)
    label[0, start:stop, 2:6, 2:6] = value
    return label


def scored(**changes):
    """Metrics of a pair; 3 voxels of a step of -3 fold 2 x 10 x 8 voxels."""
    ddf = torch.zeros(3, *SHAPE)
    ddf[0, 6:] = -3.0
    ramp = torch.arange(12.0).reshape(1, 12, 1, 1).expand(1, *SHAPE).contiguous()
    data = {
        "pair_id": "p",
        "pred": {
            "ddf": ddf,
            "losses": torch.tensor([3.0, 2.5, torch.nan]),
            "loss_identity": torch.tensor(4.0),
            "seconds": torch.tensor(1.5),
            "step_seconds": torch.tensor(0.5),
        },
        "initial_alignment": np.eye(4),
        "seconds_preprocessing": 0.25,
        "fixed_image": MetaTensor(ramp.roll(2, 1)),
        "moving_image": MetaTensor(ramp),
        "native_fixed_image": MetaTensor(torch.zeros(1, *SHAPE), affine=AFFINE),
        "native_moving_image": MetaTensor(torch.zeros(1, *SHAPE), affine=AFFINE),
        **changes,
    }
    # On the network's grid as it lies in the world: what is counted there is counted on the native grid too.
    data.setdefault(
        "displacement",
        MetaTensor(
            ddf_to_displacement(lift_ddf(data["pred"]["ddf"]), AFFINE, AFFINE, SHAPE, data["initial_alignment"])
        ),
    )
    options = {"structure_channels": [0], "landmark_channels": [1, 2], "device": "cpu", "steps": 2}
    options |= {key: data.pop(key) for key in list(data) if key in options}
    metrics = PairMetricsd(**options)(data)["metrics"]
    json.dumps(metrics, allow_nan=False)
    return metrics


def labels(fixed, aligned, warped, moving=None):
    """Labels of a pair; the moving one lies where the alignment, here the identity, leaves it."""
    images = {"native_fixed_label": fixed, "aligned_label": aligned, "warped_label": warped}
    images["native_moving_label"] = aligned if moving is None else moving
    images |= {"aligned_label_weights": aligned, "warped_label_weights": warped}
    return {key: MetaTensor(image, affine=AFFINE) for key, image in images.items()}


def test_losses_folding_and_seconds():
    metrics = scored()
    assert metrics["loss"] == [3.0, 2.5]
    assert metrics["folded_voxels"] == 2 * 10 * 8
    assert metrics["folded_percent"] == pytest.approx(100 * 2 / 12)
    assert metrics["log_jacobian_sd"] == pytest.approx(0, abs=1e-5)  # the voxels that do not fold keep their volume
    assert metrics["network_folded_voxels"] == 2 * 10 * 8
    assert metrics["network_folded_percent"] == pytest.approx(100 * 2 / 12)
    assert metrics["network_log_jacobian_sd"] == 0
    assert metrics["seconds"] == {"preprocessing": 0.25, "registration": 1.5}
    assert metrics["seconds_per_step"] == 0.5
    assert (metrics["steps"], metrics["device"], metrics["pair_id"]) == (2, "cpu", "p")
    assert metrics["initial_alignment_mm"] == np.eye(4).tolist()
    labelled = {"dsc", "hd95_mm", "centre_mm", "tre_mm", "tre_rms_mm", "warped_centroid_mm", "lost_landmarks"}
    assert not labelled & metrics.keys()


def adaptation(losses, stopped=0, best_step=1):
    pred = {"ddf": torch.zeros(3, *SHAPE), "losses": torch.tensor(losses), "best_step": torch.tensor(best_step)}
    pred |= {"seconds": torch.tensor(1.5), "step_seconds": torch.tensor(0.5), "stopped": torch.tensor(stopped)}
    return scored(pred={**pred, "loss_identity": torch.tensor(2.5)})["adaptation"]


@pytest.mark.parametrize(
    ("losses", "stopped", "expected"),
    [
        ([3.0, 2.0, 1.0], 0, {"lost_steps": 0}),
        ([3.0, 2.0, math.nan], 1, {"lost_steps": 1, "stopped": "loss not finite after 2 steps"}),
        ([3.0, 2.0, math.nan], 2, {"lost_steps": 1, "stopped": "gradient not finite after 1 steps"}),
    ],
)
def test_what_came_of_the_steps(losses, stopped, expected):
    best = {"best_state": "step 1", "best_loss": 2.0, "loss_identity": 2.5}
    assert adaptation(losses, stopped) == {**best, **expected}


def test_steps_after_the_first_loss_that_is_not_finite_are_lost():
    found = adaptation([3.0, math.inf, math.nan], stopped=1, best_step=0)
    best = {"best_state": "start", "best_loss": 3.0, "loss_identity": 2.5}
    assert found == {**best, "lost_steps": 2, "stopped": "loss not finite after 1 steps"}


def test_the_initial_alignment_may_be_the_best_state():
    found = adaptation([3.0, 2.75, 2.6], best_step=INITIAL_ALIGNMENT)
    assert (found["best_state"], found["best_loss"]) == ("initial alignment", 2.5)


def test_ncc_is_of_the_images_that_the_network_saw():
    ddf = torch.zeros(3, *SHAPE)
    ddf[0] = -2.0
    ddf[0, :2] = 10.0  # the fixed image begins with the last two layers of the moving one
    pred = {
        "losses": torch.tensor([3.0]),
        "loss_identity": torch.tensor(4.0),
        "seconds": torch.tensor(1.5),
        "step_seconds": torch.tensor(0.5),
    }
    ncc = scored(pred={"ddf": ddf, **pred})["ncc"]
    before = np.corrcoef(np.roll(np.arange(12), 2), np.arange(12))[0, 1]
    assert ncc == pytest.approx({"before": before, "after": 1.0}, abs=1e-5)


def test_similarity_is_that_of_the_loss():
    assert "similarity" not in scored()
    pred = {
        "losses": torch.tensor([3.0]),
        "loss_identity": torch.tensor(4.0),
        "seconds": torch.tensor(1.5),
        "step_seconds": torch.tensor(0.5),
    }
    pred |= {"ddf": torch.zeros(3, *SHAPE), "similarity": torch.tensor([-0.25, -0.75])}
    assert scored(pred=pred)["similarity"] == {"before": -0.25, "after": -0.75}


def maps_of(fixed, moving):
    """A pair with nothing but its maps."""
    affine = torch.eye(4)
    maps = {"fixed_maps": MetaTensor(fixed, affine=affine), "moving_maps": MetaTensor(moving, affine=affine)}
    return maps | {"fixed_certainty": 0.75, "moving_certainty": torch.tensor(0.5)}


def test_maps_predict_the_overlap_after_registration():
    fixed, moving = torch.zeros(2, *SHAPE), torch.zeros(2, *SHAPE)
    fixed[:, 2:4], moving[0, 3:5] = 1, 1
    moving[1, 3:5] = 0.5
    maps = maps_of(fixed, moving)
    ddf = torch.zeros(3, *SHAPE)
    # Half of each block overlaps. In layers: w f is 1 and 0.5, w^2 is 2 and 0.5, f^2 is 2 and 2.
    found = map_metrics(maps, ddf)
    assert found["predicted_overlap"] == pytest.approx(2 * (1 + 0.5) / (2 + 0.5 + 2 + 2), abs=1e-5)
    assert found["certainty"] == {"fixed": 0.75, "moving": 0.5}
    ddf[0] = 1
    assert map_metrics(maps, ddf)["predicted_overlap"] == pytest.approx(2 * (2 + 1) / (2 + 0.5 + 2 + 2), abs=1e-5)


def test_a_landmark_elsewhere_says_less_than_an_organ_in_place():
    fixed, moving = torch.zeros(2, *SHAPE), torch.zeros(2, *SHAPE)
    fixed[0, 2:6], moving[0, 2:6] = 1, 1
    fixed[1, 1, 1, 1], moving[1, 3, 3, 3] = 1, 1
    maps = maps_of(fixed, moving)
    organ = 4 * SHAPE[1] * SHAPE[2]
    overlap = map_metrics(maps, torch.zeros(3, *SHAPE))["predicted_overlap"]
    assert overlap == pytest.approx(organ / (organ + 1), abs=1e-5)


def test_no_pair_without_maps_has_a_predicted_overlap():
    ddf = torch.zeros(3, *SHAPE)
    assert map_metrics({}, ddf) == {}


def test_ncc_of_a_constant_image_is_null():
    assert scored(fixed_image=MetaTensor(torch.ones(1, *SHAPE)))["ncc"] == {"before": None, "after": None}


def test_what_a_registration_does_not_have_is_null():
    folds_everywhere = affine_ddf(np.diag([-2.0, 0, 0]), [0, 0, 0], SHAPE)
    pred = {
        "losses": torch.tensor([3.0]),
        "loss_identity": torch.tensor(4.0),
        "seconds": torch.tensor(1.5),
        "step_seconds": torch.tensor(torch.nan),
    }
    metrics = scored(pred={"ddf": folds_everywhere, **pred})
    assert metrics["folded_percent"] == 100
    assert metrics["log_jacobian_sd"] is None
    assert metrics["seconds_per_step"] is None


def test_log_jacobian_sd_is_that_of_the_predicted_field():
    ddf = torch.zeros(3, *SHAPE)
    # Layers of axis 1 stretch axis 0 by e^0 and e^1 in turn: u_0 = x_0 (d(x_1) - 1) has the determinant d(x_1).
    ddf[0, :, ::2] = (math.e - 1) * torch.arange(SHAPE[0])[:, None, None]
    pred = {
        "losses": torch.tensor([3.0]),
        "loss_identity": torch.tensor(4.0),
        "seconds": torch.tensor(1.5),
        "step_seconds": torch.tensor(0.5),
    }
    assert scored(pred={"ddf": ddf, **pred})["log_jacobian_sd"] == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("axis, spacing", enumerate((1.5, 0.8, 2.5)))
def test_hausdorff_distance_of_a_shifted_box_is_the_shift(axis, spacing):
    target = torch.zeros(2, 14, 15, 16)
    target[:, 4:9, 4:9, 4:9] = 1
    shifted = torch.stack([target[0], target[1].roll(2, axis)])
    # Two of five layers lie beyond the other box, more than 5 % of the surface.
    assert hausdorff_95(shifted, target, (1.5, 0.8, 2.5)).tolist() == pytest.approx([0, 2 * spacing])
    assert hausdorff_95(target, shifted, (1.5, 0.8, 2.5)).tolist() == pytest.approx([0, 2 * spacing])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_hausdorff_distance_of_a_slice_is_between_outlines(axis):
    rows, columns = np.mgrid[:40, :40]
    inner, outer = ((rows - 20) ** 2 + (columns - 20) ** 2 <= radius**2 for radius in (5, 15))
    inner, outer = (torch.as_tensor(np.expand_dims(disc, axis)[None].astype(np.float32)) for disc in (inner, outer))
    spacing = np.insert([2.0, 2.0], axis, 7.0).tolist()
    assert hausdorff_95(inner, outer, spacing).item() == pytest.approx(20, abs=0.5)


def test_hausdorff_distance_forgives_five_percent_of_the_surface():
    target = torch.zeros(1, 20, 20, 20)
    target[:, 4:9, 4:9, 4:9] = 1
    stray = target.clone()
    stray[0, 18, 18, 18] = 1
    # The surface of 5^3 voxels has 98 of them: one that strays is 1 %, a plate of 25 is 20 %.
    assert hausdorff_95(stray, target, (1, 1, 1)).item() == 0
    stray[0, 4:9, 4:9, 14] = 1  # six slices of 2 mm away
    assert hausdorff_95(stray, target, (1, 1, 2)).item() == pytest.approx(12)


def test_hausdorff_distance_of_a_missing_structure_is_nan_without_a_warning():
    label = torch.zeros(4, 6, 6, 6)
    target = label.clone()
    label[[0, 1], 2:4, 2:4, 2:4] = 1
    target[[0, 2], 2:4, 2:4, 2:4] = 1
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*all 0.*")
        distances = hausdorff_95(label, target, (1, 1, 1))
        assert hausdorff_95(label[1:], target[1:], (1, 1, 1)).isnan().all()
    assert distances[0] == 0
    assert distances[1:].isnan().all()


def test_dsc_of_every_value_of_an_integer_map():
    fixed = box(2, 6, 5) + box(8, 10, 9)
    metrics = scored(**labels(fixed, box(4, 8, 5) + box(9, 11, 9), box(3, 7, 5) + box(8, 10, 9)))
    # Layers 2-5 against 4-7 share two of four, against 3-6 three of four.
    assert metrics["dsc"] == {
        "5": {"before": 0.5, "after": 0.75},
        "9": {"before": 0.5, "after": 1.0},
    }
    # Layers are 2 mm apart.
    assert metrics["hd95_mm"] == {
        "5": {"before": 4.0, "after": 2.0},
        "9": {"before": 2.0, "after": 0.0},
    }
    assert "tre_mm" not in metrics


def three_channels(gland, first, second):
    return torch.cat([box(*gland), box(*first), box(*second)])


def test_channels_are_scored_by_overlap_or_centroid():
    metrics = scored(
        **labels(
            three_channels((2, 6), (3, 5), (7, 9)),
            three_channels((4, 8), (6, 8), (7, 9)),
            three_channels((2, 6), (4, 6), (9, 11)),
        )
    )
    assert metrics["dsc"] == {"0": {"before": 0.5, "after": 1.0}}
    assert metrics["hd95_mm"] == {"0": {"before": 4.0, "after": 0.0}}
    # Shifts of 3, 0 and 1, 2 voxels of 2 mm.
    assert metrics["warped_centroid_mm"] == {"1": {"before": 6.0, "after": 2.0}, "2": {"before": 0.0, "after": 4.0}}
    assert metrics["warped_centroid_rms_mm"] == pytest.approx({"before": math.sqrt(18), "after": math.sqrt(10)})
    assert metrics["lost_landmarks"] == {}


def test_null_channels_score_all_and_all_but_the_first():
    channels = three_channels((2, 6), (3, 5), (7, 9))
    metrics = scored(**labels(channels, channels, channels), structure_channels=None, landmark_channels=None)
    assert list(metrics["dsc"]) == list(metrics["hd95_mm"]) == ["0", "1", "2"]
    assert list(metrics["tre_mm"]) == ["1", "2"]


def test_a_structure_missing_on_one_side_is_null():
    fixed = three_channels((2, 6), (3, 5), (7, 9))
    gone = three_channels((2, 6), (4, 6), (0, 0))
    metrics = scored(**labels(fixed, three_channels((2, 6), (6, 8), (7, 9)), gone))
    assert metrics["warped_centroid_mm"]["2"] == {"before": 0.0, "after": None}
    # The landmark that was lost counts in neither mean, so that its absence improves nothing.
    assert metrics["warped_centroid_rms_mm"] == {"before": 6.0, "after": 2.0}
    # Its points are there all the same.
    assert metrics["tre_mm"]["2"]["before"] == 0
    assert metrics["lost_landmarks"] == {"2": "vanishes in the warped label after registration"}


def test_the_hausdorff_distance_of_a_structure_that_registration_loses_is_null():
    metrics = scored(**labels(box(2, 6, 5), box(3, 7, 5), box(0, 0)))
    assert metrics["hd95_mm"] == {"5": {"before": 2.0, "after": None}}
    assert metrics["dsc"]["5"]["after"] == 0


def test_a_structure_of_one_label_is_missing_and_not_lost():
    fixed, moving = box(2, 6, 5) + box(8, 10, 9), box(4, 8, 5) + box(9, 11, 7)
    with pytest.warns(
        DataWarning, match=r"pair p: structures that only one label has .*7 is missing in the fixed label; 9 is"
    ):
        metrics = scored(**labels(fixed, moving, box(3, 7, 5)))
    assert metrics["dsc"] == {"5": {"before": 0.5, "after": 0.75}, "9": {"before": None, "after": None}}
    assert metrics["missing_structures"] == {
        "7": "is missing in the fixed label",
        "9": "is missing in the moving label",
    }
    assert metrics_row(metrics)["dsc_after"] == 0.75


def test_labels_without_a_common_value_are_not_scored():
    with pytest.warns(DataWarning, match="share no structure, .*1 is missing in the fixed .*255 is missing in the mov"):
        metrics = scored(**labels(box(2, 6, 255), box(4, 8, 1), box(3, 7, 1)))
    assert "dsc_after" not in metrics_row(metrics)
    three = three_channels((2, 6), (3, 5), (7, 9))
    with pytest.warns(DataWarning, match="share no structure"):
        metrics = scored(**labels(three, three_channels((0, 0), (3, 5), (7, 9)), three))
    assert metrics["dsc"] == {"0": {"before": None, "after": None}}


def test_landmarks_missing_everywhere_have_no_mean():
    empty = three_channels((2, 6), (0, 0), (0, 0))
    metrics = scored(**labels(empty, empty, empty))
    assert metrics["tre_mm"]["1"] == {"before": None, "after": None}
    assert metrics["tre_rms_mm"] == {"before": None, "after": None}
    assert metrics["lost_landmarks"] == {}  # none of this pair's


def test_channels_the_labels_do_not_have_are_left_out():
    metrics = scored(**labels(*[torch.cat([box(2, 6), box(3, 5)])] * 3), landmark_channels=[1, 7])
    assert list(metrics["tre_mm"]) == ["1"]


@pytest.mark.parametrize("name", ["hippocampus.yaml", "hippocampus_mr.yaml"])
def test_no_part_of_the_hippocampus_is_a_landmark(name):
    """The posterior one was: the defaults are those of the prostate."""
    given = load_configurations(["inference.yaml", name])
    channels = {key: given[key] for key in ("structure_channels", "landmark_channels")}
    parts = torch.cat([box(2, 6), box(3, 5)])
    metrics = scored(**labels(parts, parts, parts), **channels)
    assert list(metrics["dsc"]) == ["0", "1"]
    assert "tre_mm" not in metrics


def registered(ddf, fixed, moving, **changes):
    """Metrics of a pair of labels on one grid, registered by a DDF in its voxels."""
    image = MetaTensor(torch.zeros(1, *SHAPE), affine=AFFINE)
    pred = {
        "losses": torch.tensor([3.0]),
        "loss_identity": torch.tensor(4.0),
        "seconds": torch.tensor(1.5),
        "step_seconds": torch.tensor(0.5),
    }
    data = {"native_fixed_image": image, "native_moving_image": image, "fixed_image": image, "moving_image": image}
    data |= {"native_fixed_label": MetaTensor(fixed, affine=AFFINE), "initial_alignment": np.eye(4)}
    data |= {"native_moving_label": MetaTensor(moving, affine=AFFINE), "pred": {"ddf": ddf, **pred}}
    return scored(**(NativeOutputsd()(data | changes) | changes))


# Takes layer x of the fixed image to 6 + 3 (x - 6) of the moving one: what is warped shrinks to a third.
SHRINKING = affine_ddf(np.diag([2.0, 0, 0]), [-12.0, 0, 0], SHAPE)


def test_a_field_that_shrinks_a_landmark_does_not_bring_its_point_nearer():
    gland = box(2, 10)
    # Centroids in layers 7.5 and 9, 2 mm apart each.
    metrics = registered(SHRINKING, torch.cat([gland, box(7, 9)]), torch.cat([gland, box(8, 11)]))
    # The point goes to layer 10.5, 1.5 layers beyond its partner.
    assert metrics["tre_mm"]["1"] == pytest.approx({"before": 3.0, "after": 3.0}, abs=1e-4)
    # The warped landmark is left in layer 7 alone, half a layer from the fixed one's centroid.
    assert metrics["warped_centroid_mm"]["1"] == pytest.approx({"before": 3.0, "after": 1.0}, abs=1e-4)
    assert metrics["tre_rms_mm"]["after"] == pytest.approx(3.0, abs=1e-4)
    assert metrics["warped_centroid_rms_mm"]["after"] == pytest.approx(1.0, abs=1e-4)


def test_the_same_points_have_the_same_tre_from_labels_and_from_files(landmark_files):
    gland = box(2, 10)
    labels = torch.cat([gland, box(7, 9)]), torch.cat([gland, box(8, 11)])
    # Layers of 2, 1 and 3 mm; the boxes are centred at 3.5 along the other axes.
    files = landmark_files([[15.0, 3.5, 10.5]], [[18.0, 3.5, 10.5]])
    tre = registered(SHRINKING, *labels, **files)["tre_mm"]
    assert list(tre) == ["1", "point 0"]
    assert tre["1"] == pytest.approx(tre["point 0"], abs=1e-5)


def test_a_landmark_that_vanishes_keeps_its_tre_and_is_named():
    gland = box(2, 10)
    # Layer 8 alone: the layers 7 and 8 of the fixed image show 9 and 12 of the moving one.
    metrics = registered(SHRINKING, torch.cat([gland, box(7, 8)]), torch.cat([gland, box(8, 9)]))
    assert metrics["tre_mm"]["1"] == pytest.approx({"before": 2.0, "after": 2.0}, abs=1e-4)
    assert metrics["warped_centroid_mm"]["1"]["after"] is None
    assert metrics["lost_landmarks"] == {"1": "vanishes in the warped label after registration"}


def test_landmarks_missing_in_one_label_or_outside_are_named_and_change_no_mean_in_silence():
    gland, none = box(2, 10), box(0, 0)
    fixed = torch.cat([gland, box(7, 9), none, box(4, 5), box(9, 11)])
    moving = torch.cat([gland, box(8, 11), box(4, 5), none, box(9, 11)])
    metrics = registered(SHRINKING, fixed, moving, landmark_channels=[1, 2, 3, 4])
    # The last one is taken from layer 9.5 to 16.5 of 12.
    assert metrics["lost_landmarks"] == {
        "2": "missing in the fixed label",
        "3": "missing in the moving label",
        "4": "lands outside the moving image",
    }
    assert metrics["tre_mm"]["2"] == metrics["tre_mm"]["3"] == {"before": None, "after": None}
    assert metrics["tre_mm"]["4"] == pytest.approx({"before": 0.0, "after": 14.0}, abs=1e-4)
    assert metrics["tre_rms_mm"]["after"] == pytest.approx(math.sqrt((3.0**2 + 14.0**2) / 2), abs=1e-4)
    assert metrics["tre_rms_mm"]["before"] == pytest.approx(math.sqrt(3.0**2 / 2), abs=1e-4)


def test_points_of_files_outside_either_image_are_named(landmark_files):
    files = landmark_files([[2.0, 3.0, 6.0], [40.0, 3.0, 6.0], [2.0, 3.0, 6.0]], [[2.0, 3.0, 6.0]] * 3)
    metrics = scored(**files, displacement=MetaTensor(torch.zeros(3, *SHAPE)))
    assert metrics["lost_landmarks"] == {"point 1": "outside the fixed image, lands outside the moving image"}
    assert metrics["tre_mm"]["point 1"] == {"before": 38.0, "after": 38.0}


def test_centres_of_structures_are_points_in_the_moving_world():
    # A turn about the corner of the volume: each centroid is taken along by the alignment, in its own image's world.
    alignment = rigid((0, 0, 90), (3.0, 0, 0), (0.0, 0, 0))
    fixed, moving = box(2, 6, 5) + box(8, 10, 9), box(3, 7, 5)
    metrics = registered(torch.zeros(3, *SHAPE), fixed, moving, initial_alignment=alignment)
    # From (7, 3.5) to (-3.5 + 3, 7), compared with (9, 3.5).
    assert metrics["centre_mm"]["5"] == pytest.approx({"before": math.hypot(9.5, 3.5), "after": math.hypot(9.5, 3.5)})
    assert metrics["centre_mm"]["9"] == {"before": None, "after": None}
    channels = torch.cat([box(2, 6), box(7, 9)]), torch.cat([box(3, 7), box(7, 9)])
    assert registered(torch.zeros(3, *SHAPE), *channels)["centre_mm"] == {"0": {"before": 2.0, "after": 2.0}}


@pytest.mark.parametrize(
    ("patient", "structures", "landmarks", "expected"),
    [
        (["A", "B"], [0], [1], ([0], [1])),
        (["A", "B"], [0, 1], [1, 2], ([0, 1], [2])),  # channel 1 was a structure and a landmark between patients
        (["A"], [0], [1], ([0], [1, 2, 3])),
        (["A"], [0, 2], [1], ([0, 2], [1, 3])),
        (["A", "B"], [0], None, ([0], [1, 2, 3])),
        (["A", "B"], None, None, ([0, 1, 2, 3], [1, 2, 3])),
    ],
)
def test_within_a_patient_all_channels_correspond(patient, structures, landmarks, expected):
    assert scored_channels({"patient": patient}, 4, structures, landmarks) == expected


@pytest.mark.parametrize(
    ("structures", "landmarks", "absent", "expected"),
    [([0], [1, 7], "7", ([0], [1])), ([99, -1], [1], "-1, 99", ([], [1])), ([4], None, "4", ([], [0, 1, 2, 3]))],
)
def test_a_channel_that_the_labels_lack_is_told(structures, landmarks, absent, expected):
    """``--structure_channels [99]`` measured no overlap, in silence."""
    with pytest.warns(
        DataWarning, match=rf"pair a: the labels have no channel {absent} \(theirs are 0 to 3\), so noth"
    ):
        assert scored_channels({"pair_id": "a"}, 4, structures, landmarks) == expected


@pytest.fixture
def landmark_files(tmp_path):
    def write(fixed, moving):
        for name, points in (("fixed", fixed), ("moving", moving)):
            rows = "\n".join(",".join(map(str, point)) for point in points)
            (tmp_path / f"{name}.csv").write_text(f"x,y,z\n{rows}\n")
        return {f"{side}_landmarks": str(tmp_path / f"{side}.csv") for side in ("fixed", "moving")}

    return write


def test_landmark_files_are_compared_in_the_moving_world(landmark_files):
    fixed = [[4.0, 3.0, 6.0], [10.0, 5.0, 12.0]]
    moving = [[4.0, 6.0, 10.0], [20.0, 5.0, 12.0]]
    alignment = np.eye(4)
    alignment[:3, 3] = [0, 3, 0]
    # d = (p_x / 2, 3, 4): the first point arrives 2 mm beside its partner, the second at (15, 8, 16).
    displacement = affine_ddf([[1.0, 0, 0], [0, 0, 0], [0, 0, 0]], [0.0, 3.0, 4.0], SHAPE)
    metrics = scored(
        **landmark_files(fixed, moving), displacement=MetaTensor(displacement), initial_alignment=alignment
    )
    assert metrics["tre_mm"]["point 0"] == pytest.approx({"before": 4.0, "after": 2.0}, abs=1e-4)
    assert metrics["tre_mm"]["point 1"] == pytest.approx(
        {"before": math.hypot(10, 3), "after": math.sqrt(25 + 9 + 16)}, abs=1e-4
    )
    assert metrics["tre_rms_mm"]["before"] == pytest.approx(math.sqrt((16 + 109) / 2))
    assert metrics["tre_rms_mm"]["after"] == pytest.approx(math.sqrt((4 + 50) / 2), abs=1e-4)


def test_landmark_files_of_different_length_are_refused(landmark_files):
    files = landmark_files([[1, 2, 3]], [[1, 2, 3], [4, 5, 6]])
    with pytest.raises(ValueError, match="moving.csv: 1 fixed and 2 moving landmarks; rows must correspond"):
        scored(**files, displacement=MetaTensor(torch.zeros(3, *SHAPE)))
