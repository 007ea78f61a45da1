"""Swapped pairs and images on themselves: fields whose lengths are known."""

from functools import partial

import numpy as np
import pytest
import torch
from monai.inferers import SimpleInferer
from toys import affine_ddf, oblique_affine

from bundle.data import join_pair
from bundle.evaluation.metrics import consistency_metrics
from bundle.registration import ConsistencyInferer

SHAPE = (8, 9, 7)
AFFINE = oblique_affine((2.0, 1.0, 3.0), (20, -35, 50), (5.0, -8.0, 3.0))
MOVING, FIXED = 1.0, 4.0


def constant(value, channels=1):
    return torch.full((1, channels, *SHAPE), value)


def shift(pair, factor):
    """DDF along the first axis of so many voxels times the difference of the sides, which swap their sign."""
    moving, fixed = pair.chunk(2, dim=1)
    difference = (fixed[:, :1] - moving[:, :1]) * factor
    return torch.cat([difference, torch.zeros(1, 2, *SHAPE)], dim=1)


class Recorder(SimpleInferer):
    """Predicts with the network, and keeps the labels that it is given."""

    def __init__(self):
        self.labels = []

    def __call__(self, inputs, network, *args, labels=None, **kwargs):
        self.labels.append(labels)
        return {"ddf": network(inputs), "losses": torch.tensor([[1.0]])}


def inferred(network, inner=None, moving=None, fixed=None, labels=None, **asked):
    asked = {"inverse_consistency": True, "self_registration": True} | asked
    moving = constant(MOVING) if moving is None else moving
    fixed = constant(FIXED) if fixed is None else fixed
    found = ConsistencyInferer(inner or Recorder(), **asked)(join_pair(moving, fixed), network, labels=labels)
    return {key: value[0] for key, value in found.items()}


def test_shifts_that_undo_each_other_are_consistent_and_leave_an_image_where_it_is():
    found = inferred(partial(shift, factor=0.5))
    assert found["ddf"][0].unique().tolist() == [1.5]
    assert found["swapped_ddf"][0].unique().tolist() == [-1.5]
    metrics = consistency_metrics(found, AFFINE)
    assert metrics["inverse_consistency_mm"] == pytest.approx(0, abs=1e-6)
    assert metrics["self_displacement_mm"] == {"mean": 0, "max": 0}


def test_a_network_that_always_shifts_moves_an_image_on_itself_by_the_shift():
    def network(pair):
        return torch.tensor([1.0, 0, 2.0]).reshape(1, 3, 1, 1, 1).expand(1, 3, *SHAPE)

    metrics = consistency_metrics(inferred(network), AFFINE)
    # A voxel of 2 mm and two of 3 mm at right angles; there and back it is twice as much.
    length = np.hypot(2, 6)
    assert metrics["self_displacement_mm"] == pytest.approx({"mean": length, "max": length}, rel=1e-6)
    assert metrics["inverse_consistency_mm"] == pytest.approx(2 * length, rel=1e-6)


def test_lengths_of_a_field_that_varies():
    metrics = consistency_metrics({"self_ddf": affine_ddf(np.diag([0.5, 0, 0]), [0, 0, 0], SHAPE)}, AFFINE)
    # Half a voxel of 2 mm more in each of eight layers: 0 to 7 mm.
    assert metrics == {"self_displacement_mm": pytest.approx({"mean": 3.5, "max": 7.0}, rel=1e-6)}


def test_the_swapped_field_is_taken_where_the_first_one_leads():
    # x -> x / 2, then x -> 2 x undoes it, though the displacements at a voxel do not cancel.
    double = affine_ddf(np.diag([1.0, 0, 0]), [0, 0, 0], (8, 2, 2))
    half = affine_ddf(np.diag([-0.5, 0, 0]), [0, 0, 0], (16, 2, 2))[:, :8]
    first = {"ddf": half, "swapped_ddf": double}
    assert consistency_metrics(first, np.eye(4))["inverse_consistency_mm"] == pytest.approx(0, abs=1e-6)
    assert (half + double).abs().max() == 3.5


def test_slices_have_lengths_in_their_plane():
    field = torch.tensor([3.0, 4.0]).reshape(2, 1, 1).expand(2, 6, 5)
    assert consistency_metrics({"self_ddf": field}, np.eye(4))["self_displacement_mm"] == {"mean": 5.0, "max": 5.0}


def test_nothing_more_is_registered_than_asked_for():
    inner = Recorder()
    network = partial(shift, factor=0.5)
    found = inferred(network, inner, inverse_consistency=False, self_registration=False)
    assert set(found) == {"ddf", "losses"}
    assert len(inner.labels) == 1
    assert consistency_metrics(found, AFFINE) == {}
    assert set(inferred(network, inverse_consistency=False)) == {"ddf", "losses", "self_ddf"}


def test_everything_of_a_side_changes_places_with_its_labels():
    inner = Recorder()
    sides = {
        name: torch.cat([constant(value), constant(10 * value)], dim=1) for name, value in (("m", 1.0), ("f", 2.0))
    }
    seen = []

    def network(pair):
        seen.append(pair[0, :, 0, 0, 0].tolist())
        return torch.zeros(1, 3, *SHAPE)

    labels = join_pair(constant(5.0), constant(6.0))
    inferred(network, inner, moving=sides["m"], fixed=sides["f"], labels=labels)
    assert seen == [[1, 10, 2, 20], [2, 20, 1, 10], [2, 20, 2, 20]]
    assert [label[0, :, 0, 0, 0].tolist() for label in inner.labels] == [[5, 6], [6, 5], [6, 6]]
