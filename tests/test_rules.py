"""Meta-gradient rules against their closed forms."""

import pytest
import torch
from meta_toys import OneWeight, adapted, make_trainer
from torch import nn

from bundle.meta import first_order_maml, reptile

# A few operations in float64.
EXACT = {"abs": 1e-14}


def unexpected(network):
    raise AssertionError("Reptile needs no loss after the adaptation")


def test_reptile_is_the_way_back_from_the_adapted_weights():
    (gradient,) = reptile(OneWeight(2.0), OneWeight(0.5), unexpected)
    assert gradient.item() == 1.5
    assert not gradient.requires_grad


def test_first_order_maml_is_the_gradient_at_the_adapted_weights():
    adapted_network = OneWeight(0.5)
    (gradient,) = first_order_maml(OneWeight(2.0), adapted_network, lambda network: (network.weight**3).sum())
    assert gradient.item() == pytest.approx(3 * 0.5**2, **EXACT)
    assert adapted_network.weight.grad is None


def test_first_order_maml_is_zero_where_the_loss_does_not_depend():
    network = nn.ParameterDict({"used": nn.Parameter(torch.ones(2)), "unused": nn.Parameter(torch.ones(3))})
    gradients = first_order_maml(network, network, lambda parameters: (2 * parameters["used"]).sum())
    found = dict(zip(network.keys(), gradients, strict=True))
    assert torch.equal(found["used"], torch.full((2,), 2.0))
    assert torch.equal(found["unused"], torch.zeros(3))


def test_meta_training_by_first_order_maml_steps_along_the_gradient_after_adaptation():
    network = OneWeight(1.0)
    make_trainer(network, [[3.0]], rule=first_order_maml).run()
    # theta <- theta - 0.5 (phi - t)
    assert network.weight.item() == pytest.approx(1.0 - 0.5 * (adapted(1.0, 3.0) - 3.0), **EXACT)


def test_first_order_maml_takes_a_mini_batch_that_the_adaptation_did_not():
    seeds = []

    def augmentation(pair, labels, seed):
        seeds.append(seed)
        return pair, labels

    make_trainer(OneWeight(), [[3.0]], rule=first_order_maml, augmentation=augmentation, seed=5).run()
    assert seeds == [(5, 1, 0, step) for step in range(4)]
