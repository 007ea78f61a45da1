"""Test-time adaptation as an inferer: zero steps are the plain network, and no pair depends on another."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from monai.losses import BendingEnergyLoss
from monai.networks.utils import eval_mode
from torch import nn

from bundle.registration import (
    INITIAL_ALIGNMENT,
    AdaptationInferer,
    AnatomySimilarity,
    BestState,
    GlobalThenLocal,
    LabelLoss,
    MSELoss,
    RegistrationLoss,
    RegistrationNetwork,
    inner_loop,
)
from bundle.system import fingerprint

SHAPE = (16, 8, 8)


@pytest.fixture
def network(local_net):
    return RegistrationNetwork(local_net)


@pytest.fixture
def loss():
    # Of so little weight that the fields of networks with random weights are better than none: they blur the noise.
    return RegistrationLoss(nn.MSELoss(), BendingEnergyLoss(), 0.01)


def pairs(count=1, seed=0):
    return torch.rand(count, 2, *SHAPE, generator=torch.Generator().manual_seed(seed))


def inferer(loss, **options):
    return AdaptationInferer(loss, partial(torch.optim.Adam, lr=0.01), **options)


class OneWeight(nn.Module):
    """``u_0 = w``, one shift along the first axis for the whole image."""

    def __init__(self, weight=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, pair):
        return self.weight * torch.tensor([1.0, 0, 0]).reshape(1, 3, 1, 1, 1).expand(1, 3, *pair.shape[2:])


def test_zero_steps_are_the_plain_network(network, loss):
    result = inferer(loss, steps=0)(pairs(), network)
    with torch.no_grad():
        expected = network(pairs())
    assert torch.equal(result["ddf"], expected)
    assert result["losses"].shape == (1, 1)
    assert result["losses"].item() == loss(expected, pairs())["loss"].item()


def test_losses_have_a_closed_form_for_one_weight(loss):
    ramp = torch.arange(16.0).reshape(1, 1, 16, 1, 1).expand(1, 1, *SHAPE)
    pair = torch.cat([ramp, ramp + 2], dim=1)
    result = AdaptationInferer(loss, partial(torch.optim.Adam, lr=0.5), steps=1)(pair, OneWeight())
    # Adam's first step is the learning rate: layers off by 2 are off by 1.5, but the last, held at the border.
    assert result["ddf"][0, :, 3, 3, 3].tolist() == pytest.approx([0.5, 0, 0], abs=1e-6)
    assert result["losses"].tolist()[0] == pytest.approx([4.0, (15 * 1.5**2 + 4) / 16], abs=1e-5)


def test_losses_fall_and_the_last_is_that_of_the_returned_field(network, loss):
    result = inferer(loss, steps=3)(pairs(), network)
    losses = result["losses"][0]
    assert losses.shape == (4,)
    assert losses[-1] < 0.98 * losses[0]
    assert losses[-1].item() == loss(result["ddf"], pairs())["loss"].item()
    assert result["seconds"].shape == (1,)
    assert result["seconds"] > 0


def test_similarity_is_the_term_of_the_loss_without_any_field_and_with_the_last(loss):
    ramp = torch.arange(16.0).reshape(1, 1, 16, 1, 1).expand(1, 1, *SHAPE)
    pair = torch.cat([ramp, ramp + 2], dim=1)
    # The start is not the identity, so the first loss is not the similarity before registration.
    result = AdaptationInferer(loss, partial(torch.optim.Adam, lr=0.5), steps=1)(pair, OneWeight(0.5))
    assert result["similarity"].shape == (1, 2)
    assert result["similarity"].tolist()[0] == pytest.approx([4.0, (14 * 1.0 + 1.0 + 4) / 16], abs=1e-5)


def test_a_pair_is_the_same_whether_or_not_another_came_before(network, loss):
    register = inferer(loss, steps=2)
    alone = register(pairs(seed=1), network)
    register(pairs(seed=2), network)
    after = register(pairs(seed=1), network)
    assert torch.equal(after["ddf"], alone["ddf"])
    assert torch.equal(after["losses"], alone["losses"])


def test_a_batch_is_registered_pair_by_pair(network, loss):
    register = inferer(loss, steps=2)
    batch = pairs(count=2)
    together = register(batch, network)
    assert together["ddf"].shape == (2, 3, *SHAPE)
    for index in range(2):
        assert torch.equal(together["ddf"][index], register(batch[index : index + 1], network)["ddf"][0])
    assert (together["ddf"][0] - together["ddf"][1]).abs().max() > 0.01


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_works_inside_evaluators_and_servers(network, loss, steps, context):
    register = inferer(loss, steps=steps)
    expected = register(pairs(), network)
    with context(), eval_mode(network):
        result = register(pairs(), network)
    assert torch.equal(result["ddf"], expected["ddf"])
    assert not result["ddf"].requires_grad
    # Nothing made in inference mode is kept for later.
    assert torch.equal(register(pairs(), network)["ddf"], expected["ddf"])


def test_inference_mode_leaves_nothing_behind_that_training_trips_over(local_net, loss):
    composite = RegistrationNetwork(GlobalThenLocal(OneWeight(0.5), local_net))
    register = inferer(loss, steps=0)
    with torch.inference_mode():
        register(pairs(), composite)
    loss(composite(pairs()), pairs())["loss"].backward()
    assert all(parameter.grad.any() for parameter in composite.network.global_network.parameters())


def test_network_stays_as_it_was(network, loss):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    inferer(loss, steps=3)(pairs(), network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_steps_not_taken_have_no_loss(loss):
    pair = torch.rand(1, 1, *SHAPE).expand(1, 2, *SHAPE)
    # The images are equal: no step helps, and the first makes it worse.
    result = AdaptationInferer(loss, partial(torch.optim.Adam, lr=0.5), steps=4, tolerance=0.01)(pair, OneWeight(0.25))
    taken = torch.isfinite(result["losses"][0]).sum().item()
    assert 2 <= taken < 5
    assert result["losses"][0, taken:].isnan().all()


class Ticking(RegistrationLoss):
    """Counts its calls: a clock on which every evaluation takes a second."""

    ticks = 0

    def forward(self, ddf, pair, labels=None):
        self.ticks += 1
        return super().forward(ddf, pair, labels)


@pytest.mark.parametrize("steps", [1, 4])
def test_step_seconds_are_of_the_steps_without_the_final_prediction(monkeypatch, network, steps):
    loss = Ticking(nn.MSELoss(), BendingEnergyLoss(), 10.0)
    monkeypatch.setattr("bundle.registration.inferers.time", SimpleNamespace(perf_counter=lambda: loss.ticks))
    result = inferer(loss, steps=steps)(pairs(count=2), network)
    assert result["step_seconds"].tolist() == [1.0, 1.0]
    assert result["seconds"].tolist() == [steps + 2.0] * 2  # and the initial alignment


def test_step_seconds_are_per_step_taken(monkeypatch):
    loss = Ticking(nn.MSELoss(), BendingEnergyLoss(), 10.0)
    monkeypatch.setattr("bundle.registration.inferers.time", SimpleNamespace(perf_counter=lambda: loss.ticks))
    pair = torch.rand(1, 1, *SHAPE).expand(1, 2, *SHAPE)
    register = AdaptationInferer(loss, partial(torch.optim.Adam, lr=0.5), steps=4, tolerance=0.01)
    result = register(pair, OneWeight(0.25))
    taken = torch.isfinite(result["losses"][0]).sum().item() - 1
    assert 1 <= taken < 4
    # The evaluation that stopped it belongs to the steps it followed.
    assert result["step_seconds"].item() == pytest.approx((taken + 1) / taken)


def test_without_steps_there_is_no_time_per_step(network, loss):
    result = inferer(loss, steps=0)(pairs(count=2), network)
    assert result["step_seconds"].shape == (2,)
    assert result["step_seconds"].isnan().all()


def test_a_field_without_finite_loss_raises(loss):
    with pytest.raises(FloatingPointError, match="nan at adaptation step 0"):
        inferer(loss, steps=0)(torch.full((1, 2, *SHAPE), torch.nan), OneWeight())

    class Jump(RegistrationLoss):
        """Finite until the weight has moved."""

        def forward(self, ddf, pair, labels=None):
            terms = super().forward(ddf, pair, labels)
            return {"loss": terms["loss"] if ddf.requires_grad else terms["loss"] * torch.inf}

    jump = Jump(nn.MSELoss(), BendingEnergyLoss(), 10.0)
    with pytest.raises(FloatingPointError, match="inf at adaptation step 2"):
        inferer(jump, steps=2)(pairs(), OneWeight())


RAMP = torch.arange(16.0).reshape(1, 1, 16, 1, 1).expand(1, 1, *SHAPE)
SHIFTED = torch.cat([RAMP, RAMP + 2], dim=1)


def test_steps_that_overshoot_keep_the_best_of_all_states(loss):
    # Adam's first step is its learning rate: from 1 to 11 voxels, where 2 are right; the start is the better one.
    result = AdaptationInferer(loss, partial(torch.optim.Adam, lr=10), steps=1)(SHIFTED, OneWeight(1.0))
    assert result["ddf"][0, 0].unique().tolist() == [1.0]
    assert result["best_step"].tolist() == [0]
    assert result["stopped"].tolist() == [0]
    losses = result["losses"][0].tolist()
    assert losses[0] == pytest.approx((15 * 1.0 + 4) / 16, abs=1e-5)
    assert losses[1] > losses[0]
    # The similarity is that of the field that is returned; without regularity in a constant field it is the loss.
    assert result["similarity"][0, 1].item() == pytest.approx(losses[0], abs=1e-5)


def test_best_state_lies_between_the_first_and_the_last(loss):
    # 0, 0.9, about 1.8, and Adam's momentum carries the weight on past 2.
    register = AdaptationInferer(loss, partial(torch.optim.Adam, lr=0.9), steps=4)
    result = register(SHIFTED, OneWeight())
    losses = result["losses"][0]
    best = int(losses.argmin())
    assert best == 2
    assert result["best_step"].item() == 2
    assert loss(result["ddf"], SHIFTED)["loss"].item() == losses[best].item()


@pytest.mark.parametrize("steps", [0, 1])
def test_the_initial_alignment_wins_where_start_and_steps_are_worse(loss, steps):
    # The images are equal, the start moves by three voxels, and a step by one back.
    pair = RAMP.expand(1, 2, *SHAPE)
    register = AdaptationInferer(loss, partial(torch.optim.Adam, lr=1.0), steps=steps)
    result = register(pair, OneWeight(3.0))
    assert not result["ddf"].any()
    assert result["best_step"].tolist() == [INITIAL_ALIGNMENT]
    assert result["loss_identity"].item() < 1e-12
    assert result["losses"].shape == (1, steps + 1)
    assert (result["losses"] > 1).all()
    assert result["similarity"].tolist() == [[result["loss_identity"].item()] * 2]


@pytest.mark.parametrize("apart", [True, False])
def test_equal_images_do_not_overrule_maps_that_lie_apart(loss, apart):
    # The start moves by three voxels: what the images need not, and the maps need if they lie that far apart.
    organ = torch.zeros(1, 1, *SHAPE)
    organ[:, :, 6:9] = 1
    moving, fixed = organ, organ.roll(-3, dims=2) if apart else organ
    mask = torch.ones_like(organ)
    pair = torch.cat([RAMP, mask, moving, RAMP, mask, fixed], dim=1)
    terms = {"anatomy": AnatomySimilarity(), "anatomy_weight": 1e-3}
    with_maps = RegistrationLoss(MSELoss(), loss.regularisation, 1.0, **terms)
    result = AdaptationInferer(with_maps, torch.optim.Adam, steps=0)(pair, OneWeight(3.0))
    assert result["loss_identity"] < result["losses"][0, 0]
    assert result["best_step"].tolist() == [0 if apart else INITIAL_ALIGNMENT]
    assert result["ddf"].any() == apart


def test_the_initial_alignment_is_kept_only_where_it_may_be(loss):
    register = AdaptationInferer(loss, torch.optim.Adam, steps=0, keep_alignment=False)
    result = register(RAMP.expand(1, 2, *SHAPE), OneWeight(3.0))
    assert result["loss_identity"] < result["losses"][0, 0]
    assert result["best_step"].tolist() == [0]
    assert result["ddf"].abs().max() == 3


def test_the_initial_alignment_loses_where_a_state_is_as_good(loss):
    result = AdaptationInferer(loss, partial(torch.optim.Adam, lr=0.5), steps=0)(SHIFTED, OneWeight(0.0))
    assert result["best_step"].tolist() == [0]
    assert result["loss_identity"].tolist() == result["losses"][:, 0].tolist() == [4.0]


def test_the_inverse_of_the_initial_alignment_is_none_either(local_net, loss):
    network = RegistrationNetwork(local_net, integration_steps=2)
    same = pairs()[:, :1].expand(1, 2, *SHAPE)
    result = inferer(loss, steps=0)(same, network)
    assert network(same).any()
    assert result["best_step"].tolist() == [INITIAL_ALIGNMENT]
    assert not result["ddf"].any()
    assert not result["inverse_ddf"].any()
    assert result["inverse_ddf"].shape == result["ddf"].shape


class NotFinite(RegistrationLoss):
    """Loss and gradient of a shift, one of which is not finite where the shift is beyond a limit."""

    def __init__(self, what, limit):
        super().__init__(nn.MSELoss(), BendingEnergyLoss(), 0.0)
        self.what, self.limit = what, limit

    def forward(self, ddf, pair, labels=None):
        terms = super().forward(ddf, pair, labels)
        if ddf[0, 0, 0, 0, 0] > self.limit:
            if self.what == "loss":
                return terms | {"loss": terms["loss"] * torch.nan}
            if ddf.requires_grad:
                ddf.register_hook(lambda gradient: gradient * torch.inf)
        return terms


@pytest.mark.parametrize("optimizer", [partial(torch.optim.Adam, lr=0.5), partial(torch.optim.SGD, lr=0.25)])
@pytest.mark.parametrize(("what", "code"), [("loss", 1), ("gradient", 2)])
def test_numbers_that_are_not_finite_end_the_steps_at_the_last_finite_state(what, code, optimizer):
    whole = AdaptationInferer(NotFinite(what, torch.inf), optimizer, steps=5)(SHIFTED, OneWeight())
    limit = 0.9
    result = AdaptationInferer(NotFinite(what, limit), optimizer, steps=5)(SHIFTED, OneWeight())
    assert result["stopped"].tolist() == [code]
    finite = int(result["losses"].isfinite().sum())
    assert 1 < finite < 6
    assert torch.equal(result["losses"][0, :finite], whole["losses"][0, :finite])
    assert result["best_step"].item() == finite - 1
    shift = result["ddf"][0, 0, 0, 0, 0].item()
    assert (shift > limit) is (what == "gradient")
    assert result["similarity"].isfinite().all()


def test_meta_learning_goes_where_the_steps_lead_even_if_that_is_worse(loss):
    best = BestState()
    for result in inner_loop(OneWeight(1.0), loss, partial(torch.optim.Adam, lr=10), [(SHIFTED, None)]):
        if result.terms:
            best.visit(result.network, result.terms["loss"])
    assert result.network.weight.item() == pytest.approx(11.0)
    best.visit(result.network, loss(result.network(SHIFTED), SHIFTED)["loss"])
    assert best.step == 0
    best.restore(result.network)
    assert result.network.weight.item() == 1.0


def test_what_is_not_supported_raises(network, loss):
    with pytest.raises(ValueError, match="steps is -1; expected 0"):
        inferer(loss, steps=-1)
    with pytest.raises(ValueError, match="a joined pair, a network and labels, nothing else"):
        inferer(loss)(pairs(), network, "more")


def test_labels_of_the_pair_lead_the_steps_only_where_the_loss_asks_for_them(network):
    labels = torch.zeros(2, 2, *SHAPE)
    labels[0, 0, 2:6], labels[0, 1, 5:9], labels[1, 0, 6:9], labels[1, 1, 2:5] = 1, 1, 1, 1
    guided = inferer(RegistrationLoss(nn.MSELoss(), BendingEnergyLoss(), 0.01, label=LabelLoss()), steps=2)
    together = guided(pairs(2), network, labels=labels)
    alone = guided(pairs(2)[1:], network, labels=labels[1:])
    torch.testing.assert_close(together["ddf"][1:], alone["ddf"])
    plain = inferer(RegistrationLoss(nn.MSELoss(), BendingEnergyLoss(), 0.01), steps=2)
    unaware = plain(pairs(2), network, labels=labels)
    assert torch.equal(unaware["ddf"], plain(pairs(2), network)["ddf"])
    assert not torch.equal(unaware["ddf"], together["ddf"])
    with pytest.raises(ValueError, match="label term but the pair has no labels"):
        guided(pairs(2), network)


def test_finished_pairs_do_not_depend_on_the_memory_that_they_may_take(loss):
    """A list with pairs that did not fit, continued with more memory, registered all of its pairs again."""
    made = [inferer(loss, memory_gib=gib, at_once=threads) for gib, threads in ((None, 1), (16.0, 2))]
    assert (
        len({fingerprint(each) for each in made})
        == 1
        < len({fingerprint(made[0]), fingerprint(inferer(loss, steps=9))})
    )


def test_no_thread_at_once_is_refused(loss):
    with pytest.raises(ValueError, match="at_once is 0; expected 1 thread or more"):
        inferer(loss, at_once=0)
