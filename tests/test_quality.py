"""The verdict: quantities with known answers, every rule at either side of its limits."""

import json

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from toys import rigid

from bundle.evaluation import QualityVerdictd
from bundle.evaluation.quality import border_displacement, overlap_percent
from bundle.evaluation.rules import RULES, score
from bundle.evaluation.verdict import check_limits, findings, judge
from bundle.geometry import ddf_to_displacement, without_alignment

SURE = {"fixed": 0.5, "moving": 0.5}
BARE = {"pair_id": "a", "loss": [2.0, 1.0], "folded_percent": 0.0, "log_jacobian_sd": 0.1, "certainty": SURE}


def both(before, after):
    return {"before": before, "after": after}


# --- quantities -----------------------------------------------------------------------------------------------------


def test_registration_itself_is_what_the_initial_alignment_leaves(fixed_grid):
    alignment = rigid((10, -5, 30), (7.0, -3.0, 2.0), fixed_grid.centre)
    ddf = torch.zeros(3, *fixed_grid.shape)
    ddf[1] = 2.0
    affine = fixed_grid.affine
    displacement = ddf_to_displacement(ddf, affine, affine, fixed_grid.shape, alignment)
    field = without_alignment(displacement, affine, alignment)
    # Two voxels along the second axis, in mm of the fixed world; points are some 50 mm from the origin, in float32.
    expected = torch.as_tensor(2 * affine[:3, 1]).float().reshape(3, 1, 1, 1).expand(3, *fixed_grid.shape)
    torch.testing.assert_close(field.float(), expected, atol=1e-4, rtol=0)


def test_border_is_the_faces_and_forgives_a_twentieth_of_them():
    field = torch.zeros(3, 10, 10, 10)
    field[0, 1:-1, 1:-1, 1:-1] = 9.0
    assert border_displacement(field) == 0
    field[1] = 4.0
    field[2] = 3.0
    assert border_displacement(field) == 5
    field[2, 0, 0, :4] = 80.0  # of 600
    assert border_displacement(field) == 5


def test_a_slice_has_edges_but_no_faces():
    field = torch.zeros(3, 12, 9, 1)
    field[0, 1:-1, 1:-1] = 7.0
    assert border_displacement(field) == 0


@pytest.mark.parametrize(("shift", "expected"), [(0.0, 100.0), (5.0, 75.0), (-5.0, 75.0), (100.0, 0.0)])
def test_overlap_of_a_shifted_image(shift, expected):
    # 10 voxels of 2 mm: 5 mm are 2.5 of them, and the outermost half voxel still belongs to the image.
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    displacement = torch.zeros(3, 20, 5, 5)
    displacement[0] = shift
    fixed = np.diag([1.0, 3.0, 4.0, 1.0])
    fixed[0, 3] = -0.5
    assert overlap_percent(displacement, fixed, affine, (10, 5, 5)) == expected


def test_overlap_of_a_slice_is_in_the_plane():
    displacement = torch.zeros(3, 10, 10, 1)
    displacement[1] = 3.0
    assert overlap_percent(displacement, np.eye(4), np.eye(4), (10, 10, 1)) == pytest.approx(70)


# --- rules ----------------------------------------------------------------------------------------------------------


CASES = [  # rule, [check, failed], metrics within, beyond the first, beyond the second
    ("similarity_gain_percent", [5, -5], both(-0.5, -0.525), both(-0.5, -0.52), both(-0.5, -0.47), "similarity"),
    ("similarity_gain_percent", [5, -5], both(2.0, 1.875), both(2.0, 1.92), both(2.0, 2.125), "similarity"),
    ("loss_rise", [0, 0.25], [-4.0, -4.0], [-0.125, 0.125], [2.0, 2.5], "loss"),
    ("lost_steps", [0, 1], {"lost_steps": 0}, {"lost_steps": 1}, {"lost_steps": 2}, "adaptation"),
    ("moved_mm", [0.5, 0.25], 0.5, 0.4, 1.6e-14, "largest_displacement_mm"),
    ("folded_percent", [0.5, 5], 0.5, 1.8, 5.1, "folded_percent"),
    ("border_displacement_mm", [10, 20], 10.0, 10.1, 20.5, "border_displacement_mm"),
    ("largest_displacement_mm", [10, 20], 10.0, 20.0, 21.0, "largest_displacement_mm"),
    ("log_jacobian_sd", [0.5, 1], 0.5, 0.75, 1.5, "log_jacobian_sd"),
    ("overlap_percent", [75, 50], 75.0, 74.9, 49.0, "overlap_percent"),
    ("dsc_drop", [0.0625, 0.25], {"1": both(0.5, 0.4375)}, {"1": both(0.5, 0.25)}, {"1": both(0.9, 0.5)}, "dsc"),
    ("tre_rise_mm", [1, 5], both(4.0, 5.0), both(4.0, 9.0), both(4.0, 9.5), "tre_rms_mm"),
    ("lost_landmarks", [0, 1], {}, {"2": "missing in the moving label"}, {"1": "x", "2": "y"}, "lost_landmarks"),
    ("predicted_overlap", [0.85, 0.6], 0.85, 0.84, 0.5, "predicted_overlap"),
    ("score", [0.25, 0.125], 1.0, 0.9, 0.4, "predicted_overlap"),  # times the certainty of both images
]


def verdict(limits, **metrics):
    return judge(findings({**BARE, **metrics}, limits))


@pytest.mark.parametrize(("rule", "limits", "within", "beyond", "far_beyond", "key"), CASES)
def test_rule_at_either_side_of_its_limits(rule, limits, within, beyond, far_beyond, key):
    for value, expected in ((within, "good"), (beyond, "check"), (far_beyond, "failed")):
        found = verdict({rule: limits}, **{key: value})
        assert found["verdict"] == expected
        assert len(found["reasons"]) == (expected != "good")
        if expected != "good":
            limit = limits[expected == "failed"]
            direction = "below" if RULES[rule].least else "above"
            assert f"({expected} {direction} {limit:g}" in found["reasons"][0]
    json.dumps(found, allow_nan=False)


def test_lost_landmarks_are_named():
    lost = {"2": "missing in the moving label", "point 0": "lands outside the moving image"}
    (reason,) = verdict({"lost_landmarks": [0, None]}, lost_landmarks=lost)["reasons"]
    assert reason == (
        "Not every landmark has its place in both images (2 without one): landmark 2 missing in the moving label; "
        "point 0 lands outside the moving image (check above 0)"
    )


def test_score_is_the_predicted_overlap_as_far_as_the_maps_are_sure():
    sure = {"fixed": 0.5, "moving": 0.8}
    assert score({**BARE, "predicted_overlap": 0.875, "certainty": sure}) == pytest.approx(0.35)
    assert score(BARE) is None


def test_every_rule_has_a_case():
    assert {case[0] for case in CASES} == set(RULES)


def test_a_reason_is_a_sentence_with_the_number_and_the_limit():
    found = verdict({"folded_percent": [0.5, 5.0]}, folded_percent=1.8)
    assert found["reasons"] == ["1.80 % of the voxels fold (check above 0.5 %)"]


@pytest.mark.parametrize(
    ("limits", "metrics", "reason"),
    [
        (
            {"similarity_gain_percent": [None, -20.0]},
            {"similarity": both(-0.5, -0.379)},
            "The similarity of the images changed by -24.2 % (failed below -20 %)",
        ),
        (
            {"predicted_overlap": [0.92, 0.8]},
            {"predicted_overlap": 0.9187},
            "The predicted anatomy of the two images overlaps by only 0.919 (check below 0.92)",
        ),
        (
            {"folded_percent": [0.5, 5.0]},
            {"folded_percent": 5.00004},
            "5.00004 % of the voxels fold (failed above 5 %)",
        ),
    ],
)
def test_a_reason_shows_that_its_value_is_beyond_the_limit(limits, metrics, reason):
    """Of 0.9187 it said 'by only 0.92 (check below 0.92)'."""
    assert verdict(limits, **metrics)["reasons"] == [reason]


def test_between_modalities_similarity_does_not_judge(content):
    own, of_volumes = (content(files, "quality") for files in (["inference.yaml", "mr_trus.yaml"], "inference.yaml"))
    assert of_volumes["similarity_gain_percent"] == [-20.0, -50.0]
    assert own == {**of_volumes, "similarity_gain_percent": None}


def test_steps_that_led_to_numbers_that_are_not_finite_are_a_reason():
    found = verdict({"lost_steps": [0, None]}, adaptation={"best_step": 2, "lost_steps": 3, "stopped": "loss"})
    assert found["verdict"] == "check"
    assert found["reasons"] == [
        "3 of the steps led to a loss or gradient that is not finite; the best field before was kept (check above 0)"
    ]


def test_no_gain_at_all_is_no_improvement():
    limits = {"similarity_gain_percent": [1.0, -20.0]}
    assert verdict(limits, similarity=both(-0.25, -0.25))["verdict"] == "check"
    assert verdict(limits, similarity=both(0.0, 0.0))["verdict"] == "check"


def test_lengths_of_pictures_are_pixels():
    entry = findings({**BARE, "largest_displacement_mm": 12.0}, {"largest_displacement_mm": [10, 20]}, unit="px")[0]
    assert entry["reason"] == "The largest displacement is 12.0 px (check above 10 px)"


def test_null_switches_off_a_rule_or_one_of_its_limits():
    bad = {"folded_percent": 60.0}
    assert verdict({"folded_percent": None}, **bad) == {"verdict": "good", "reasons": [], "rules": []}
    assert verdict({}, **bad)["verdict"] == "good"
    assert verdict({"folded_percent": [1, None]}, **bad)["verdict"] == "check"
    assert verdict({"folded_percent": [None, 1]}, **bad)["verdict"] == "failed"
    assert verdict({"folded_percent": [None, 70]}, **bad)["verdict"] == "good"


def test_what_a_pair_does_not_have_is_not_judged():
    limits = dict.fromkeys(RULES, [0.0, 0.0])
    metrics = {"log_jacobian_sd": None, "loss": [2.0], "dsc": {"1": both(0.5, None)}, "tre_rms_mm": both(None, None)}
    found = verdict(limits, **metrics)
    assert found["verdict"] == "good"
    assert {rule["rule"] for rule in found["rules"] if rule["value"] is not None} == {"folded_percent"}


def test_the_worst_rule_decides_and_comes_first():
    limits = {"loss_rise": [0, None], "folded_percent": [0.5, 5]}
    found = verdict(limits, loss=[1.0, 1.05], folded_percent=9.0)
    assert found["verdict"] == "failed"
    assert [reason.rpartition("(")[2] for reason in found["reasons"]] == ["failed above 5 %)", "check above 0)"]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"folded": [1, 2]}, "quality has no rule folded; expected some of similarity_gain_percent"),
        (
            {"folded_percent": [5, 1]},
            r"quality::folded_percent is \[5, 1\]; expected \[check, failed\] with the second no smaller, or null",
        ),
        ({"overlap_percent": [50, 75]}, "the second no larger, or null"),
        (
            {"folded_percent": [5]},
            r"quality::folded_percent is \[5\]; expected two numbers, \[check, failed\], or null",
        ),
        ({"score": 0.5}, r"quality::score is 0.5; expected two numbers"),
        ({"folded_percent": [0.5, "null"]}, r"quality::folded_percent is \[0.5, 'null'\]; expected two numbers"),
        ({"folded_percent": "05"}, "quality::folded_percent is '05'; expected two numbers"),
    ],
)
def test_wrong_limits_are_refused(limits, message):
    with pytest.raises(ValueError, match=message):
        check_limits(limits)
    with pytest.raises(ValueError, match=message):
        QualityVerdictd(limits)


# --- transform ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["inference.yaml", "inference_2d.yaml"])
def test_configured_limits_cover_every_rule(file, content):
    limits = content(file, "quality")
    assert list(limits) == list(RULES)
    check_limits(limits)


def test_verdict_is_added_to_the_metrics(content):
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    alignment = np.eye(4)
    alignment[:3, 3] = (40, 0, 0)
    displacement = torch.zeros(3, 8, 8, 8)
    displacement[0] = 40.0
    displacement[1] = 22.0
    moving = affine.copy()
    moving[0, 3] = 40
    data = {
        "native_fixed_image": MetaTensor(torch.zeros(1, 8, 8, 8), affine=affine),
        "native_moving_image": MetaTensor(torch.zeros(1, 8, 8, 8), affine=moving),
        "displacement": MetaTensor(displacement, affine=affine),
        "initial_alignment": alignment,
        "metrics": BARE,
    }
    metrics = QualityVerdictd(content("inference.yaml", "quality"))(data)["metrics"]
    # 22 mm are 11 voxels: nothing is left of an image of 8.
    assert metrics["border_displacement_mm"] == metrics["largest_displacement_mm"] == pytest.approx(22)
    assert metrics["overlap_percent"] == 0
    assert metrics["verdict"]["verdict"] == "failed"
    assert metrics["verdict"]["reasons"] == [
        "Only 0.0 % of the fixed image lies inside the moving image (failed below 20 %)",
        "The border of the fixed image moves by 22.0 mm (check above 20 mm)",
    ]
    assert "verdict" not in BARE
