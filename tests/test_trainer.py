"""Meta-training with one weight, whose every update has a closed form."""

import pytest
import torch
from meta_toys import Distance, OneWeight, adapted, make_trainer, sgd
from monai.bundle import ConfigParser
from monai.data import Dataset
from monai.engines import IterationEvents
from monai.handlers import LrScheduleHandler
from monai.losses import BendingEnergyLoss
from monai.utils import CommonKeys
from torch import nn
from workflow_fixtures import ROOT, TRAIN

from bundle.data import PreparePair, RandomPairAffine
from bundle.meta import first_order_maml, reptile
from bundle.meta.trainer import UNSUPPORTED
from bundle.registration import LocalNormalizedCrossCorrelationLoss, RegistrationLoss, RegistrationNetwork, adapt
from bundle.system import DataWarning

pytest_plugins = ["workflow_fixtures"]

# A few operations in float64.
EXACT = {"abs": 1e-14}


def reptile_steps(weight, batches, epsilons):
    """``theta <- theta + epsilon (mean_n phi_n - theta)`` for every meta-batch."""
    for batch, epsilon in zip(batches, epsilons, strict=True):
        phi = sum(adapted(weight, target) for target in batch) / len(batch)
        weight = weight + epsilon * (phi - weight)
    return weight


@pytest.mark.parametrize("batches", [[[3.0]], [[3.0], [-1.0], [2.0]], [[3.0, -1.0]], [[3.0, -1.0], [0.5, 4.0]]])
def test_sgd_along_the_meta_gradient_is_reptile(batches):
    network = OneWeight(1.0)
    make_trainer(network, batches).run()
    assert network.weight.item() == pytest.approx(reptile_steps(1.0, batches, [0.5] * len(batches)), **EXACT)


def test_inner_steps_take_the_pairs_of_an_episode_in_turn():
    network = OneWeight(1.0)
    batch = [3.0, -1.0, 0.5, 4.0]  # two episodes of two pairs
    make_trainer(network, [batch], pairs_per_episode=2).run()
    phis = []
    for first, second in ((3.0, -1.0), (0.5, 4.0)):
        weight = 1.0
        for target in (first, second, first):
            weight = adapted(weight, target, steps=1)
        phis.append(weight)
    assert network.weight.item() == pytest.approx(1.0 + 0.5 * (sum(phis) / 2 - 1.0), **EXACT)


def test_step_size_one_moves_the_start_to_the_adapted_weights():
    network = OneWeight(1.0)
    make_trainer(network, [[3.0]], torch.optim.SGD(network.parameters(), lr=1.0)).run()
    assert network.weight.item() == pytest.approx(adapted(1.0, 3.0), **EXACT)


def test_adam_outside_takes_its_own_first_step():
    network = OneWeight(1.0)
    make_trainer(network, [[3.0]], torch.optim.Adam(network.parameters(), lr=0.25)).run()
    # The first step of Adam is lr along the sign of the gradient: towards the adapted weight.
    assert network.weight.item() == pytest.approx(1.25, abs=1e-7)


def test_step_size_decays_linearly_to_its_final_value():
    network, batches = OneWeight(1.0), [[3.0], [-1.0], [2.0], [0.5]]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1 / 0.5, total_iters=4)
    trainer = make_trainer(network, batches, optimizer)
    LrScheduleHandler(schedule, print_lr=False, epoch_level=False).attach(trainer)
    trainer.run()
    assert network.weight.item() == pytest.approx(reptile_steps(1.0, batches, [0.5, 0.4, 0.3, 0.2]), **EXACT)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1, **EXACT)


def test_inner_steps_are_announced_k_times_per_episode():
    network = OneWeight(1.0)
    trainer, announced = make_trainer(network, [[3.0, -1.0], [2.0, 0.0]]), []
    trainer.add_event_handler(
        IterationEvents.INNER_ITERATION_COMPLETED,
        lambda engine: announced.append((engine.state.iteration, engine.state.output[0]["inner_step"])),
    )
    trainer.run()
    assert announced == [(iteration, step) for iteration in (1, 2) for _episode in range(2) for step in range(3)]


def test_output_is_the_mean_loss_of_the_last_and_of_the_first_inner_step():
    trainer = make_trainer(OneWeight(1.0), [[3.0, -1.0]])
    trainer.run()
    first = [0.5 * (1.0 - target) ** 2 for target in (3.0, -1.0)]
    last = [0.5 * (adapted(1.0, target, steps=2) - target) ** 2 for target in (3.0, -1.0)]
    assert trainer.state.output[0]["loss_first_step"].item() == pytest.approx(sum(first) / 2, **EXACT)
    assert trainer.state.output[0][CommonKeys.LOSS].item() == pytest.approx(sum(last) / 2, **EXACT)


def test_optimiser_state_is_fresh_in_every_episode():
    network = OneWeight(1.0)
    outer = torch.optim.SGD(network.parameters(), lr=0.5)
    trainer = make_trainer(
        network, [[3.0], [-1.0]], outer, inner_steps=1, inner_optimizer=lambda p: torch.optim.Adam(p, lr=0.01)
    )
    trainer.run()
    # Every first step of Adam is lr along the sign of the gradient; kept moments would turn the second one.
    assert network.weight.item() == pytest.approx(1.0 + 0.5 * 0.01 - 0.5 * 0.01, abs=1e-8)


def test_mini_batches_are_decided_by_seed_iteration_episode_and_step():
    seeds = []

    def augmentation(pair, labels, seed):
        seeds.append(seed)
        return pair, labels

    make_trainer(OneWeight(), [[3.0, 1.0], [2.0, 1.0]], augmentation=augmentation, seed=9, inner_steps=2).run()
    assert seeds == [(9, iteration, episode, step) for iteration in (1, 2) for episode in (0, 1) for step in (0, 1)]


@pytest.mark.parametrize("option", UNSUPPORTED)
def test_option_without_meaning_here_is_refused_by_name(option):
    with pytest.raises(ValueError, match=f"does not support {option}"):
        make_trainer(OneWeight(), [[3.0]], **{option: True})


def test_a_negative_number_of_inner_steps_is_refused():
    with pytest.raises(ValueError, match="inner_steps is -1; expected 0"):
        make_trainer(OneWeight(), [[3.0]], inner_steps=-1)


def test_a_loss_of_inner_steps_that_are_not_taken_is_refused():
    """conventional.yaml, then bilevel.yaml, was conventional training, in silence."""
    with pytest.raises(ValueError, match="inner_steps is 0, and inner_loss is another loss .* and bilevel.yaml"):
        make_trainer(OneWeight(), [[3.0]], inner_steps=0, inner_loss=Weight(), rule=first_order_maml)


@pytest.mark.parametrize(
    ("overlays", "refused"),
    [(["bilevel"], False), (["conventional"], False), (["conventional", "bilevel"], True)],
)
def test_overlays_of_two_ways_to_train_are_refused_together(overlays, refused, tiny_dataset):
    files = [str(TRAIN), *(str(ROOT / f"configs/overlays/{name}.yaml") for name in overlays)]
    parser = ConfigParser({**ConfigParser.load_config_files(files), "dataset_dir": str(tiny_dataset)})
    if refused:
        with pytest.raises(RuntimeError) as error:
            parser.get_parsed_content("train::trainer")
        assert str(error.value.__cause__).startswith("inner_steps is 0, and inner_loss is another loss")
    else:
        assert parser.get_parsed_content("train::trainer").rule is first_order_maml


def test_no_inner_steps_and_the_gradient_after_them_are_conventional_training():
    network, weight = OneWeight(1.0), 1.0
    trainer = make_trainer(network, [[3.0, -1.0], [2.0, 0.0]], inner_steps=0, rule=first_order_maml)
    trainer.run()
    for mean_target in (1.0, 1.0):
        weight -= 0.5 * (weight - mean_target)
    assert network.weight.item() == pytest.approx(weight, **EXACT)
    # Before the last update the weight was 1: the losses of the targets 2 and 0 are a half each.
    assert trainer.state.output[0][CommonKeys.LOSS].item() == pytest.approx(0.5, **EXACT)


class Weight(nn.Module):
    """``L = w^2 / 2``: an objective that knows nothing of the target."""

    def forward(self, output, pair, labels=None):
        return {"loss": 0.5 * (output**2).sum()}


def test_inner_steps_follow_their_own_objective_and_the_rule_the_outer_one():
    network = OneWeight(1.0)
    trainer = make_trainer(network, [[3.0]], inner_loss=Weight(), rule=first_order_maml)
    trainer.run()
    phi = adapted(1.0, 0.0)
    assert network.weight.item() == pytest.approx(1.0 - 0.5 * (phi - 3.0), **EXACT)
    assert trainer.state.output[0][CommonKeys.LOSS].item() == pytest.approx(0.5 * (phi - 3.0) ** 2, **EXACT)
    assert trainer.state.output[0]["loss_first_step"].item() == pytest.approx(0.5, **EXACT)


NAN = float("nan")


@pytest.mark.parametrize("rule_and_steps", [(reptile, 3), (first_order_maml, 3), (first_order_maml, 0)])
def test_episode_that_is_not_finite_is_left_out_of_the_mean(rule_and_steps):
    rule, steps = rule_and_steps
    network, without = OneWeight(1.0), OneWeight(1.0)
    trainer = make_trainer(network, [[3.0, NAN, -1.0], [2.0, 2.0, NAN]], rule=rule, inner_steps=steps)
    trainer.run()
    make_trainer(without, [[3.0, -1.0], [2.0, 2.0]], rule=rule, inner_steps=steps).run()
    assert network.weight.item() == without.weight.item()
    assert trainer.state.episodes == {"all": 6, "skipped": 2, "in_a_row": 0}
    assert trainer.state.metrics["skipped_episodes"] == 2
    assert torch.isfinite(trainer.state.output[0][CommonKeys.LOSS])


class Steep(Distance):
    """``L`` with a gradient that is not finite for the target 7, while the loss itself is."""

    def forward(self, output, pair, labels=None):
        if pair.mean() == 7 and output.requires_grad:
            output = output * 1.0
            output.register_hook(lambda gradient: gradient * NAN)
        return super().forward(output, pair)


@pytest.mark.parametrize("steps", [1, 3])
def test_gradient_that_is_not_finite_skips_its_episode_too(steps):
    network, without = OneWeight(1.0), OneWeight(1.0)
    trainer = make_trainer(network, [[3.0, 7.0]], loss_function=Steep(), inner_steps=steps)
    trainer.run()
    make_trainer(without, [[3.0]], inner_steps=steps).run()
    assert network.weight.item() == without.weight.item()
    assert trainer.state.episodes["skipped"] == 1


def test_update_without_a_finite_episode_is_none_and_is_reported():
    network, without = OneWeight(1.0), OneWeight(1.0)
    adam = torch.optim.Adam(network.parameters(), lr=0.25)
    trainer = make_trainer(network, [[3.0], [NAN], [-1.0]], adam)
    told = "^1 of 3 episodes were skipped: their loss or gradient was not finite$"
    with pytest.warns(DataWarning, match=told):  # which the command line shows whatever it hides of what is logged
        trainer.run()
    make_trainer(without, [[3.0], [-1.0]], torch.optim.Adam(without.parameters(), lr=0.25)).run()
    # Adam would have moved on with its momentum, had it stepped.
    assert network.weight.item() == without.weight.item()


def test_epoch_of_nothing_but_bad_episodes_stops_the_run():
    network = OneWeight(1.0)
    with pytest.raises(FloatingPointError, match="all episodes of the last 2 meta-updates .*lower inner_lr") as error:
        make_trainer(network, [[NAN, NAN], [NAN, NAN]], max_epochs=5).run()
    assert "\n" not in str(error.value)
    assert network.weight.item() == 1.0


def test_meta_training_lowers_the_loss_after_adaptation():
    def loss_after_adaptation(network):
        losses = []
        for target in (2.5, 3.0, 3.5):
            pair = torch.full((1, 2, 2), target, dtype=torch.float64)
            result = adapt(network, Distance(), sgd(0.1), [(pair, None)] * 3)
            losses.append(Distance()(result.network(pair), pair)["loss"].item())
        return sum(losses)

    network = OneWeight(-4.0)
    before = loss_after_adaptation(network)
    make_trainer(network, [[2.0], [3.0], [4.0]], max_epochs=10).run()
    assert loss_after_adaptation(network) < 0.05 * before
    assert network.weight.item() == pytest.approx(3.0, abs=0.3)


def test_pairs_with_masks_are_trained_on(local_net):
    generator = torch.Generator().manual_seed(0)
    images = {f"{side}_image": torch.rand(1, 1, 16, 16, 16, generator=generator) for side in ("fixed", "moving")}
    mask = torch.zeros(1, 1, 16, 16, 16)
    mask[:, :, 2:12] = 1
    start = {name: value.clone() for name, value in local_net.state_dict().items()}
    trainer = make_trainer(
        RegistrationNetwork(local_net),
        [],
        torch.optim.SGD(local_net.parameters(), lr=1.0),
        train_data_loader=[[{**images, "fixed_mask": mask}]],
        loss_function=RegistrationLoss(LocalNormalizedCrossCorrelationLoss(kernel_size=5), BendingEnergyLoss(), 1.0),
        prepare_batch=PreparePair(),
        augmentation=RandomPairAffine(versions=2),
        inner_steps=2,
    )
    trainer.run()
    assert torch.isfinite(trainer.state.output[0][CommonKeys.LOSS])
    changes = [(value - start[name]).abs().max() for name, value in local_net.state_dict().items()]
    assert max(changes) > 0
    assert all(torch.isfinite(change) for change in changes)


@pytest.mark.parametrize(("clip", "step"), [(0.1, 0.1), (10.0, None), (None, None)])
def test_meta_gradients_longer_than_the_limit_are_shortened_to_it(clip, step):
    network = OneWeight(1.0)
    make_trainer(network, [[3.0]], rule=first_order_maml, clip_gradient=clip).run()
    expected = step or 3.0 - adapted(1.0, 3.0)
    assert network.weight.item() == pytest.approx(1.0 + 0.5 * expected, abs=1e-6)


def test_a_limit_of_the_meta_gradient_is_above_zero():
    with pytest.raises(ValueError, match="clip_gradient is 0; expected a norm above 0, or null"):
        make_trainer(OneWeight(), [[3.0]], clip_gradient=0)


@pytest.mark.parametrize(
    ("iterations", "most", "epochs", "length"), [(4, 100, 1, 4), (250, 100, 3, 84), (2000, 100, 20, 100), (3, 1, 3, 1)]
)
def test_a_training_is_as_long_as_asked_for(content, iterations, most, epochs, length):
    values = {"iterations": iterations, "iterations_per_epoch": most, "channels": 2}
    values["train::dataset"] = Dataset([{"fixed_image": "a", "moving_image": "b", "patient": ("a", "b")}])
    assert content("train.yaml", "train::trainer::max_epochs", **values) == epochs
    assert len(content("train.yaml", "train::sampler", **values)) == length
    assert content("train.yaml", "lr_scheduler", **values).total_iters == epochs * length
