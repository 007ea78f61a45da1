"""Both directions of a pair in the outer loss: constant shifts have known answers."""

import pytest
import torch
from meta_toys import make_trainer
from monai.losses import BendingEnergyLoss
from torch import nn

from bundle.data import split_pair
from bundle.meta import SymmetricObjective, first_order_maml, reptile
from bundle.registration import Moving, RegistrationLoss, ResidualField

SHAPE = (8, 7, 6)


class Shifts(nn.Module):
    """One constant shift for pairs whose moving image is brighter than the fixed one, one for the others."""

    def __init__(self, forth, back):
        super().__init__()
        self.forth, self.back = (nn.Parameter(torch.tensor(shift)) for shift in (forth, back))

    def forward(self, pair):
        moving, fixed = split_pair(pair)
        shift = self.forth if moving[:, 0].mean() > fixed[:, 0].mean() else self.back
        return shift.reshape(1, 3, 1, 1, 1).expand(len(pair), 3, *pair.shape[2:])


class First(nn.Module):
    """``L = u_0`` times the mean of the moving side's channels, plus that of the fixed labels."""

    def forward(self, ddf, pair, labels=None):
        loss = ddf[:, 0].mean() * split_pair(pair)[0].mean()
        return {"loss": loss if labels is None else loss + split_pair(labels)[1].mean()}


def joined(moving, fixed, channels=1):
    return torch.cat([torch.full((1, channels, *SHAPE), float(value)) for value in (moving, fixed)], dim=1)


def test_opposite_shifts_are_consistent_and_others_by_the_square_of_what_is_left():
    def inconsistency(forth, back):
        return SymmetricObjective(First())(Shifts(forth, back), joined(2, 1))["inverse_consistency"].item()

    assert inconsistency([1.0, -2.0, 0.5], [-1.0, 2.0, -0.5]) == pytest.approx(0, abs=1e-12)
    assert inconsistency([1.0, -2.0, 0.5], [-1.0, 0.0, -1.5]) == pytest.approx(2.0**2 + 1.0**2)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_loss_is_the_mean_over_both_directions_with_all_channels_and_labels_turned(channels):
    network, pair, labels = Shifts([3.0, 0, 0], [5.0, 0, 0]), joined(2, 1, channels), joined(10, 20, 2)
    terms = SymmetricObjective(First(), 0.5)(network, pair, labels)
    forth, back = 3 * 2 + 20, 5 * 1 + 10
    assert terms["inverse_consistency"].item() == pytest.approx(8.0**2)
    assert terms["loss"].item() == pytest.approx((forth + back) / 2 + 0.5 * 8.0**2)


def test_no_displacement_is_the_optimum_of_an_image_and_itself():
    image = torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(0))
    field = nn.Parameter(torch.zeros(1, 3, *SHAPE))
    objective = SymmetricObjective(RegistrationLoss(nn.MSELoss(), BendingEnergyLoss(), 1.0), 1.0)
    terms = objective(lambda pair: field + 0, torch.cat([image, image], dim=1))
    assert terms["loss"].item() == pytest.approx(0, abs=1e-10)
    assert set(terms) == {"loss", "similarity", "regularisation", "inverse_consistency"}
    terms["loss"].backward()
    assert field.grad.abs().max() < 1e-6
    moved = nn.Parameter(field + 0.1 * torch.rand_like(field))
    assert objective(lambda pair: moved + 0, torch.cat([image, image], dim=1))["loss"] > 0.001


class Meets(nn.Module):
    """``L = (u_0 - 1)^2 / 2``."""

    def forward(self, ddf, pair, labels=None):
        return {"loss": 0.5 * (ddf[:, 0] - 1).square().mean()}


def trainer_of(network, **settings):
    batches = [[{"target": joined(2, 1)}]]
    return make_trainer(
        network,
        [],
        torch.optim.SGD(network.parameters(), lr=0.5),
        train_data_loader=batches,
        loss_function=Meets(),
        objective=SymmetricObjective(Meets()),
        **settings,
    )


@pytest.mark.parametrize("steps", [0, 1])
def test_training_follows_the_gradient_of_both_directions(steps):
    network = Shifts([3.0, 0, 0], [5.0, 0, 0])
    trainer_of(network, inner_steps=steps, rule=first_order_maml).run()
    # The inner step of 0.1 is on the pair as it stands: from 3 to 2.8. Each direction counts half.
    assert network.forth[0].item() == pytest.approx(3 - 0.5 * (2 - 0.2 * steps) / 2)
    assert network.back[0].item() == pytest.approx(5 - 0.5 * 4 / 2)


def test_reptile_has_no_outer_loss_that_could_be_symmetric():
    with pytest.raises(ValueError, match="Reptile learns nothing of a symmetric loss"):
        trainer_of(Shifts([0.0] * 3, [0.0] * 3), rule=reptile)


def test_a_residual_field_belongs_to_one_direction():
    network = ResidualField(Shifts([0.0] * 3, [0.0] * 3), (2, 2, 2))
    moving = Moving(torch.optim.SGD, ["residual"])
    with pytest.raises(ValueError, match="symmetric is true, but a residual field belongs to one direction"):
        trainer_of(network, inner_optimizer=moving, rule=first_order_maml).run()
