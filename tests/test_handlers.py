"""Checkpoints survive interruptions, other settings and full disks; the progress bar closes."""

import errno
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Events
from meta_toys import OneWeight, make_trainer
from monai.handlers import LrScheduleHandler

from bundle.meta import ProgressBar, ResumableCheckpoint
from bundle.meta.handlers import save_atomically

BATCHES = [[3.0], [-1.0]]


class Interruption(Exception):
    """What stops a run in the middle."""


class Run:
    """Three epochs with one weight, Adam outside, a schedule, and a validation whose best epoch is the second."""

    def __init__(self, folder, settings=(("inner_lr", 0.1),), validated=True, kept=()):
        self.network = OneWeight(1.0)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=0.5)
        self.schedule = torch.optim.lr_scheduler.LinearLR(self.optimizer, 1.0, 0.1, total_iters=6)
        self.trainer = make_trainer(self.network, BATCHES, self.optimizer, max_epochs=3)
        self.evaluator = SimpleNamespace(
            state=SimpleNamespace(best_metric=-1, best_metric_epoch=-1), should_terminate=False
        )
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, self.validate)
        LrScheduleHandler(self.schedule, print_lr=False, epoch_level=False).attach(self.trainer)
        parts = {"network": self.network, "optimizer": self.optimizer, "lr_scheduler": self.schedule}
        judge = self.evaluator if validated else None
        ResumableCheckpoint(folder, parts, dict(settings), judge, kept_epochs=kept).attach(self.trainer)

    def validate(self, engine):
        metric = (9.0, 1.0, 5.0)[engine.state.epoch - 1]
        if engine.state.epoch == 1 or metric < self.evaluator.state.best_metric:
            self.evaluator.state.best_metric = metric
            self.evaluator.state.best_metric_epoch = engine.state.epoch

    def interrupt_at(self, iteration):
        def stop(engine):
            raise Interruption

        self.trainer.add_event_handler(Events.ITERATION_STARTED(once=iteration), stop)
        with pytest.raises(Interruption):
            self.trainer.run()

    def state(self):
        (adam,) = self.optimizer.state_dict()["state"].values()
        return {
            "weight": self.network.weight.item(),
            **{name: value.item() for name, value in adam.items()},
            "lr": self.optimizer.param_groups[0]["lr"],
            "schedule": self.schedule.last_epoch,
            "best": vars(self.evaluator.state),
            "iteration": self.trainer.state.iteration,
        }


def test_resumed_run_equals_an_uninterrupted_one(tmp_path):
    whole, interrupted, resumed = Run(tmp_path / "whole"), Run(tmp_path / "parts"), Run(tmp_path / "parts")
    whole.trainer.run()
    interrupted.interrupt_at(4)
    resumed.trainer.run()
    assert whole.state()["iteration"] == 6
    assert resumed.state() == whole.state()
    assert resumed.state()["best"] == {"best_metric": 1.0, "best_metric_epoch": 2}
    for name in ("model.pt", "model_last.pt"):
        expected = torch.load(tmp_path / "whole" / name)
        assert torch.equal(torch.load(tmp_path / "parts" / name)["weight"], expected["weight"])


def test_weights_of_named_epochs_are_kept(tmp_path):
    run, weights = Run(tmp_path, kept=(1, 3)), {}
    run.trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda engine: weights.update({engine.state.epoch: run.network.weight.item()})
    )
    run.trainer.run()
    assert sorted(path.name for path in tmp_path.glob("model_epoch_*")) == ["model_epoch_1.pt", "model_epoch_3.pt"]
    for epoch in (1, 3):
        assert torch.load(tmp_path / f"model_epoch_{epoch}.pt")["weight"].item() == weights[epoch]


def test_run_interrupted_in_its_first_epoch_starts_anew(tmp_path):
    whole, interrupted, again = Run(tmp_path / "whole"), Run(tmp_path / "parts"), Run(tmp_path / "parts")
    whole.trainer.run()
    interrupted.interrupt_at(2)
    assert not (tmp_path / "parts").exists()
    again.trainer.run()
    assert again.state() == whole.state()


def test_finished_run_stays_as_it_is(tmp_path):
    Run(tmp_path).trainer.run()
    before = torch.load(tmp_path / "model_last.pt")
    again = Run(tmp_path)
    again.trainer.run()
    assert torch.equal(again.network.weight.data, before["weight"])
    assert torch.equal(torch.load(tmp_path / "model_last.pt")["weight"], before["weight"])


@pytest.mark.parametrize(("validated", "same"), [(True, False), (False, True)])
def test_model_is_of_the_best_epoch_and_of_the_last_without_validation(tmp_path, validated, same):
    Run(tmp_path, validated=validated).trainer.run()
    best, last = (torch.load(tmp_path / name)["weight"].item() for name in ("model.pt", "model_last.pt"))
    assert (best == last) is same


def test_checkpoint_of_other_settings_is_refused_by_name(tmp_path):
    Run(tmp_path).trainer.run()
    with pytest.raises(ValueError, match=r"other settings \(inner_lr was 0.1, is 0.2; steps was None, is 5\)") as error:
        Run(tmp_path, settings=(("inner_lr", 0.2), ("steps", 5))).trainer.run()
    assert "--output_dir" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["truncated", "text", "weights"])
def test_file_that_is_no_checkpoint_is_refused_by_name(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    Run(tmp_path).trainer.run()
    (tmp_path / "checkpoint_previous.pt").unlink()
    if content == "truncated":
        path.write_bytes(path.read_bytes()[:500])
    elif content == "text":
        path.write_text("no checkpoint")
    else:
        (tmp_path / "model.pt").replace(path)
    with pytest.raises(ValueError, match=r"checkpoint.pt cannot be read as a checkpoint .*move it away") as error:
        Run(tmp_path).trainer.run()
    assert "\n" not in str(error.value)


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "new/model.pt"
    save_atomically({"weight": 1}, path)

    def full(content, file):
        file.write(b"the beginning")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="cannot write .*model.pt.*No space left on device"):
        save_atomically({"weight": 2}, path)
    assert torch.load(path) == {"weight": 1}
    assert [file.name for file in path.parent.iterdir()] == ["model.pt"]


def bar_of(trainer):
    progress = ProgressBar()
    progress.attach(trainer)
    return progress


def test_progress_bar_counts_every_iteration(capsys):
    trainer = make_trainer(OneWeight(1.0), BATCHES, max_epochs=6)
    progress = bar_of(trainer)
    trainer.run()
    assert (progress.bar.n, progress.bar.total, progress.bar.disable) == (12, 12, True)
    assert "loss=" in capsys.readouterr().err


def test_progress_bar_closes_when_the_run_fails_and_lets_the_error_out(capsys):
    trainer = make_trainer(OneWeight(1.0), BATCHES)
    progress = bar_of(trainer)

    def stop(engine):
        raise Interruption

    trainer.add_event_handler(Events.ITERATION_STARTED(once=2), stop)
    with pytest.raises(Interruption):
        trainer.run()
    assert progress.bar.disable
    assert progress.bar.n == 1


def test_error_before_the_progress_bar_is_there_comes_out():
    trainer = make_trainer(OneWeight(1.0), BATCHES)

    def stop(engine):
        raise Interruption

    trainer.add_event_handler(Events.STARTED, stop)
    bar_of(trainer)
    with pytest.raises(Interruption):
        trainer.run()
