"""The memory that a registration takes is known before it is taken."""

from functools import partial

import pytest
import torch

from bundle.api import read_configuration
from bundle.registration import (
    AdaptationInferer,
    BendingEnergyLoss,
    ClassicalInferer,
    GlobalMutualInformationLoss,
    LocalMutualInformationLoss,
    MSELoss,
    RegistrationLoss,
)
from bundle.registration.memory import GIB, KERNEL_BYTES_PER_VOXEL, check_memory, free_bytes, peak_bytes

PAIR = torch.rand(1, 2, 16, 24, 32, generator=torch.Generator().manual_seed(0))
VOXELS = 16 * 24 * 32


def double_thrice(pair):
    """Three tensors of one channel live together, and three only: the first is let go."""
    first = pair[:, :1] * 2
    second = first * 2
    third = second * 2
    del first
    fourth = third * 2
    return second, fourth


def test_tensors_that_live_together_are_counted():
    tensors = 2 * 4 * VOXELS + 3 * 4 * VOXELS  # the pair, and three of one channel
    assert peak_bytes(double_thrice, PAIR) == int(1.2 * tensors + KERNEL_BYTES_PER_VOXEL * VOXELS)


def test_no_memory_is_taken_by_the_estimate():
    vast = torch.empty(1, 2, 1, 1, 1).expand(1, 2, 4096, 4096, 4096)
    assert peak_bytes(double_thrice, vast) > 1000 * GIB


@pytest.mark.parametrize("read", [lambda pair: pair.sum().item(), lambda pair: pair[pair > 0.5].mean()])
def test_what_is_seen_ends_where_a_value_is_read(read):
    assert peak_bytes(read, PAIR) > 2 * 4 * VOXELS


def test_every_similarity_is_followed_with_masks():
    pair = torch.cat([PAIR[:, :1], torch.ones_like(PAIR[:, :1]), PAIR[:, 1:], torch.ones_like(PAIR[:, :1])], 1)
    for similarity in (MSELoss(), GlobalMutualInformationLoss(), LocalMutualInformationLoss(8)):
        loss = RegistrationLoss(similarity, BendingEnergyLoss(), 1.0)
        register = ClassicalInferer(loss, torch.optim.SGD, steps=1, memory_gib=0.01)
        assert register(pair, torch.nn.Identity())["ddf"].isfinite().all()


def test_masks_and_maps_are_counted_to_the_end_of_a_step():
    found = {}
    for channels, options in ((2, {"weights": None}), (10, {})):
        parser = read_configuration("inference.yaml", options)
        network, inferer = (parser.get_parsed_content(name) for name in ("registration_network", "inferer"))
        pair = torch.ones(1, channels, 48, 48, 48)
        step = partial(inferer._one_step, labels=None, network=network, optimizer=inferer.optimizer)
        found[channels] = peak_bytes(step, pair)
    assert found[10] > found[2] + 1.2 * 8 * 4 * 48**3


@pytest.mark.parametrize("steps", [0, 1])
def test_the_prediction_is_counted_with_and_without_steps(steps):
    network = torch.nn.Sequential(torch.nn.Conv3d(2, 64, 1), torch.nn.Conv3d(64, 3, 1))
    loss = RegistrationLoss(MSELoss(), BendingEnergyLoss(), 1.0)
    register = AdaptationInferer(loss, torch.optim.SGD, steps)
    step = partial(register._one_step, labels=None, network=network, optimizer=torch.optim.SGD)
    assert peak_bytes(step, PAIR) > (2 + 64 + 3) * 4 * VOXELS


def test_a_pair_that_does_not_fit_is_refused_with_the_estimate():
    with pytest.raises(ValueError, match=r"registering 16 x 24 x 32 voxels takes about 0\.0 GiB, of which 0\.0 are"):
        check_memory(double_thrice, PAIR, limit_gib=0.001)
    check_memory(double_thrice, PAIR, limit_gib=0.004)


def test_the_spacing_that_is_proposed_fits():
    needed = peak_bytes(double_thrice, PAIR)
    with pytest.raises(ValueError, match="take a pixdim 2 times as large"):
        check_memory(double_thrice, PAIR, limit_gib=needed / 8 / GIB)


def test_the_size_that_is_proposed_for_slices_fits():
    """A pixdim was proposed, of which the size of their grid does not depend."""
    slices = PAIR[..., 0]
    needed = peak_bytes(double_thrice, slices)
    with pytest.raises(ValueError, match="free; take a spatial_size 2 times as small, or a machine"):
        check_memory(double_thrice, slices, limit_gib=needed / 4 / GIB)


def test_free_memory_of_this_machine_is_plausible():
    assert 2**26 < free_bytes(torch.device("cpu")) < 2**50


def test_files_that_a_container_has_read_do_not_take_its_memory(monkeypatch, tmp_path):
    monkeypatch.setattr("bundle.registration.memory.CGROUP", tmp_path)
    monkeypatch.setattr("bundle.registration.memory.MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text("MemTotal: 32000000 kB\nMemAvailable: 16000000 kB\n")
    assert free_bytes(torch.device("cpu")) == 16000000 * 1024
    for name, number in (("max", 8 * GIB), ("current", 7 * GIB)):
        (tmp_path / f"memory.{name}").write_text(f"{number}\n")
    (tmp_path / "memory.stat").write_text(f"anon {2 * GIB}\nfile {5 * GIB}\ninactive_file {4 * GIB}\n")
    assert free_bytes(torch.device("cpu")) == 5 * GIB
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(torch.device("cpu")) == 16000000 * 1024


def test_a_registration_that_does_not_fit_takes_no_step():
    parser = read_configuration("inference.yaml", {"memory_gib": 0.06, "weights": None, "quality_pages": False})
    network, inferer = (parser.get_parsed_content(name) for name in ("registration_network", "inferer"))
    with pytest.raises(ValueError, match=r"registering 96 x 96 x 48 voxels takes about 0\.\d GiB, of which 0\.1 are"):
        inferer(torch.rand(1, 2, 96, 96, 48), network)
    smaller = torch.rand(1, 2, 48, 48, 48)
    assert inferer(smaller, network)["losses"].isfinite().all()


def test_the_estimate_does_not_touch_the_network():
    parser = read_configuration("inference.yaml", {"weights": None})
    network, inferer = (parser.get_parsed_content(name) for name in ("registration_network", "inferer"))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    step = partial(inferer._one_step, labels=None, network=network, optimizer=inferer.optimizer)
    assert peak_bytes(step, torch.rand(1, 2, 48, 48, 48)) > 2**24
    assert all(type(tensor) is torch.Tensor for tensor in network.state_dict().values())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
