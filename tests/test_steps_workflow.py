"""What the steps move, and both directions, from YAML: trained and registered on tiny volumes."""

import json

import pytest
import torch
from workflow_fixtures import INFERENCE, SMALL, TRAIN, pair, write_json

from bundle.system.configurations import find_configurations

pytest_plugins = ["workflow_fixtures"]

MORE = {"named_layers": {}, "residual_field": {"inner_lr": 0.3}, "step_sizes": {}}


def files(*names):
    return (
        "["
        + ",".join(f"'{name if '/' in str(name) else find_configurations(f'{name}.yaml')[0]}'" for name in names)
        + "]"
    )


@pytest.fixture
def data(tiny_dataset):
    return {"dataset_dir": tiny_dataset, "datalist": tiny_dataset / "datalist.json"}


@pytest.mark.parametrize("overlay", MORE)
def test_overlay_trains_by_the_bilevel_objective_and_registers(overlay, data, command, tmp_path):
    config = files(TRAIN, "cpu", "labels", "bilevel", overlay)
    values = {**data, "structures": "$None", "clip_gradient": 1.0, **MORE[overlay]}
    finished = command.train(tmp_path / "run", config, **values)
    assert finished.code == 0, finished.error
    flat = torch.load(tmp_path / "run/model.pt")
    assert not any(name.startswith(("network.", "residual", "log_scales")) for name in flat)
    assert (tmp_path / "run/model_step_sizes.pt").exists() == (overlay == "step_sizes")
    datalist = write_json(tmp_path / "pairs.json", {"test": [pair("F", "G", pair_id="one")]})
    settings = {**data, "datalist": datalist, "weights": tmp_path / "run/model.pt", **MORE[overlay]}
    finished = command.register(tmp_path / "out", files(INFERENCE, "cpu", overlay), **settings)
    assert finished.code == 0, finished.error
    metrics = json.loads((tmp_path / "out/one/metrics.json").read_text())
    assert len(metrics["loss"]) == SMALL["steps"] + 1
    assert metrics["adaptation"]["best_loss"] == min(metrics["loss"] + [metrics["adaptation"]["loss_identity"]])


def test_learned_step_sizes_are_those_of_the_registration(data, command, tmp_path):
    config = files(TRAIN, "bilevel", "step_sizes")
    finished = command.train(tmp_path / "run", config, **data, meta_lr=0.01)
    assert finished.code == 0, finished.error
    learned = torch.load(tmp_path / "run/model_step_sizes.pt")["log_scales"]
    assert learned.abs().min() > 1e-3
    losses = {}
    datalist = write_json(tmp_path / "pairs.json", {"test": [pair("F", "G", pair_id="one")]})
    weights = {**data, "datalist": datalist, "weights": tmp_path / "run/model.pt"}
    for name in ("learned", "none"):
        finished = command.register(tmp_path / name, files(INFERENCE, "step_sizes"), **weights, inner_lr=0.01)
        assert finished.code == 0, finished.error
        losses[name] = json.loads((tmp_path / name / "one/metrics.json").read_text())["loss"]
        # Steps that do not move are those of a scale of nearly zero.
        torch.save({"log_scales": torch.full_like(learned, -5.0)}, tmp_path / "run/model_step_sizes.pt")
    assert losses["learned"][0] == losses["none"][0] == pytest.approx(losses["none"][-1], abs=1e-5)
    assert abs(losses["learned"][-1] - losses["learned"][0]) > 1e-4
    (tmp_path / "run/model_step_sizes.pt").unlink()
    finished = command.register(tmp_path / "missing", files(INFERENCE, "step_sizes"), **weights)
    assert finished.code == 1
    assert "weights not found" in finished.error
    assert "model_step_sizes.pt" in finished.error


@pytest.mark.parametrize("overlay", ["conventional", "bilevel"])
def test_symmetric_training_from_the_command_line(overlay, data, command, tmp_path):
    values = {**data, "symmetric": True, "inverse_consistency_weight": 0.1}
    if overlay == "conventional":
        values |= {"inner_steps": 0}
    finished = command.train(tmp_path / "run", files(TRAIN, overlay), **values)
    assert finished.code == 0, finished.error
    checkpoint = torch.load(tmp_path / "run/checkpoint.pt")
    assert checkpoint["settings"]["objective"] == "a SymmetricObjective"


@pytest.mark.parametrize(
    ("overlays", "values", "message"),
    [
        (["residual_field"], {}, "Reptile learns nothing where the steps move residual alone"),
        (["step_sizes"], {}, "Reptile learns nothing of step sizes"),
        ([], {"symmetric": True}, "Reptile learns nothing of a symmetric loss"),
    ],
)
def test_what_reptile_learns_nothing_of_is_refused_in_one_line(overlays, values, message, data, command, tmp_path):
    finished = command.train(tmp_path / "run", files(TRAIN, *overlays), **data, **values)
    assert finished.code == 1
    assert message in finished.error
    assert len(finished.error.strip().splitlines()) == 1
