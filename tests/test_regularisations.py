"""Bending energy: the values and the gradient of MONAI's."""

import monai.losses
import pytest
import torch
from toys import affine_ddf

from bundle.registration import BendingEnergyLoss


@pytest.mark.parametrize("shape", [(7, 9, 8), (12, 10), (3, 3, 3)])
@pytest.mark.parametrize("options", [{}, {"normalize": True}, {"reduction": "sum"}])
def test_value_and_gradient_are_those_of_monai(shape, options):
    field = torch.randn(2, len(shape), *shape, generator=torch.Generator().manual_seed(0))
    values, gradients = [], []
    for loss in (BendingEnergyLoss(**options), monai.losses.BendingEnergyLoss(**options)):
        ddf = field.clone().requires_grad_()
        values.append(loss(ddf))
        (3 * values[-1]).backward()
        gradients.append(ddf.grad)
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)


def test_an_affine_does_not_bend():
    ddf = affine_ddf([[0.1, 0.2, 0.0], [0.0, -0.3, 0.1], [0.2, 0.0, 0.1]], [1, 2, 3], (6, 7, 8))[None]
    assert BendingEnergyLoss()(ddf) < 1e-10


def test_a_parabola_bends_by_its_curvature():
    x = torch.arange(8.0).reshape(1, 1, 8, 1, 1).expand(1, 1, 8, 6, 5)
    ddf = torch.cat([0.25 * x**2, torch.zeros_like(x), torch.zeros_like(x)], dim=1)
    assert BendingEnergyLoss()(ddf).item() == pytest.approx(0.5**2 / 3)


def test_too_small_a_field_is_refused():
    with pytest.raises(ValueError, match="must be > 2"):
        BendingEnergyLoss()(torch.zeros(1, 3, 2, 8, 8))


def test_no_gradient_is_kept_where_none_is_asked_for():
    with torch.no_grad():
        assert not BendingEnergyLoss()(torch.zeros(1, 3, 5, 5, 5)).requires_grad
