"""Checkpoints survive interruptions, other settings and full disks; the progress bar closes."""

import errno
import multiprocessing
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Events
from meta_toys import OneWeight, make_trainer
from monai.handlers import LrScheduleHandler
from torch.utils.data import DataLoader
from toys import killer

from bundle.meta import EpisodeSampler, ProgressBar, ResumableCheckpoint
from bundle.meta.checkpoints import read_checkpoint
from bundle.meta.handlers import on_the_cpu, save_atomically
from bundle.system import DataWarning

BATCHES = [[3.0], [-1.0]]
FORK = multiprocessing.get_context("fork")


class Interruption(Exception):
    """What stops a run in the middle."""


class Run:
    """Three epochs with one weight, Adam outside, a schedule, and a validation whose best epoch is the second."""

    def __init__(self, folder, settings=(("inner_lr", 0.1),), validated=True, kept=(), interval=1):
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
        ResumableCheckpoint(folder, parts, dict(settings), judge, interval, kept).attach(self.trainer)

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


def test_epochs_to_keep_that_a_run_does_not_have_are_refused(tmp_path):
    """They were not written, in silence."""
    with pytest.raises(ValueError, match=r"kept_epochs has \[0, 4\], and the epochs are 1 to 3"):
        Run(tmp_path, kept=(0, 3, 4))


@pytest.mark.parametrize("interval", [1, 2, 3])
def test_the_best_weights_are_kept_whenever_checkpoints_are_written(tmp_path, interval):
    Run(tmp_path, kept=(2, 3), interval=interval).trainer.run()
    best, last = (torch.load(tmp_path / f"model_epoch_{epoch}.pt")["weight"] for epoch in (2, 3))
    assert best != last
    assert torch.load(tmp_path / "model.pt")["weight"] == best
    assert torch.load(tmp_path / "model_last.pt")["weight"] == last


def test_the_last_weights_are_the_best_where_no_epoch_was_validated(tmp_path):
    run = Run(tmp_path)
    run.trainer.remove_event_handler(run.validate, Events.EPOCH_COMPLETED)
    run.trainer.run()
    assert torch.load(tmp_path / "model.pt")["weight"] == run.network.weight


def test_weights_are_written_from_the_cpu_and_shared_tensors_once(tmp_path):
    one, other = torch.rand(50, 100), torch.rand(50, 100)
    state = on_the_cpu({"layer": one, "the same by another name": one, "other": other})
    assert {value.device.type for value in state.values()} == {"cpu"}
    save_atomically(state, tmp_path / "model.pt")
    assert (tmp_path / "model.pt").stat().st_size < 2.2 * one.nbytes
    read = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(torch.equal(read[name], value) for name, value in state.items())
    if torch.cuda.is_available():
        assert on_the_cpu({"layer": one.cuda()})["layer"].device.type == "cpu"


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


def test_what_is_to_be_moved_away_is_all_that_cannot_be_read(tmp_path):
    """The newest alone was named, and without it the line named a file that was not there."""
    for name in ("checkpoint.pt", "checkpoint_previous.pt"):
        (tmp_path / name).write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"checkpoint.pt and .*checkpoint_previous.pt cannot .* move them away"):
        read_checkpoint(tmp_path, {})
    (tmp_path / "checkpoint.pt").unlink()
    with pytest.raises(ValueError, match=r"^[^ ]*checkpoint_previous.pt cannot be read .*; move it away to start anew"):
        read_checkpoint(tmp_path, {})
    (tmp_path / "checkpoint_previous.pt").unlink()
    assert read_checkpoint(tmp_path, {}) is None


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(path.read_bytes()[:500]), lambda path: path.unlink()])
def test_the_checkpoint_before_takes_over_where_the_newest_cannot_be_read(tmp_path, recwarn, spoil):
    whole, interrupted, resumed = Run(tmp_path / "whole"), Run(tmp_path / "parts"), Run(tmp_path / "parts")
    whole.trainer.run()
    interrupted.interrupt_at(4)
    spoil(tmp_path / "parts/checkpoint.pt")
    there = (tmp_path / "parts/checkpoint.pt").exists()
    resumed.trainer.run()
    assert resumed.state() == whole.state()
    warned = [str(warning.message) for warning in recwarn if warning.category is DataWarning]
    assert len(warned) == there
    assert all("checkpoint_previous.pt takes over" in line and "\n" not in line for line in warned)
    assert (tmp_path / "parts/checkpoint_unreadable.pt").exists() is there


class EpisodeRun:
    """Epochs of four iterations over pairs that an ``EpisodeSampler`` draws, and which of them were used."""

    def __init__(self, folder, sampled=True, validated=True, epochs=3):
        pairs = [{"target": torch.full((1, 2, 2), float(target), dtype=torch.float64)} for target in range(5)]
        if sampled:
            data = Loaded(pairs)
            sampler = EpisodeSampler(data, episodes=8, seed=3)
            loader = DataLoader(data, batch_size=2, sampler=sampler, collate_fn=list)
        else:
            data, loader = None, [[pairs[n], pairs[n + 1]] for n in range(4)]
        self.network = OneWeight(1.0)
        optimizer = torch.optim.SGD(self.network.parameters(), lr=0.5)
        self.trainer = make_trainer(self.network, [], optimizer, max_epochs=epochs, train_data_loader=loader)
        self.data, self.validations = data, []
        self.evaluator = SimpleNamespace(
            state=SimpleNamespace(best_metric=-1, best_metric_epoch=-1), should_terminate=False
        )
        if validated:
            self.trainer.add_event_handler(Events.EPOCH_COMPLETED, self.validate)
        parts = {"network": self.network, "optimizer": optimizer}
        ResumableCheckpoint(folder, parts, {}, self.evaluator if validated else None).attach(self.trainer)

    def validate(self, engine):
        self.validations.append((engine.state.epoch, self.network.weight.item()))
        self.evaluator.state.best_metric_epoch = engine.state.epoch

    def stop_after(self, event):
        self.trainer.add_event_handler(event, lambda engine: engine.terminate())
        self.trainer.run()
        return self


class Loaded:
    """A list of pairs that notes which were loaded."""

    def __init__(self, data):
        self.data, self.loaded = data, []

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        self.loaded.append(index)
        return self.data[index]


@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("iteration", range(1, 13))
def test_run_stopped_after_any_iteration_ends_like_an_uninterrupted_one(tmp_path, iteration, validated, sampled):
    whole = EpisodeRun(tmp_path / "whole", sampled, validated)
    whole.trainer.run()
    stopped = EpisodeRun(tmp_path / "parts", sampled, validated)
    stopped.stop_after(Events.ITERATION_COMPLETED(once=iteration))
    assert stopped.trainer.state.iteration == iteration
    resumed = EpisodeRun(tmp_path / "parts", sampled, validated)
    resumed.trainer.run()
    assert resumed.network.weight.item() == whole.network.weight.item()
    assert resumed.trainer.state.episodes == whole.trainer.state.episodes == {"all": 24, "skipped": 0, "in_a_row": 0}
    assert stopped.validations + resumed.validations == whole.validations
    if sampled:
        # Nothing is loaded twice, and nothing for nothing.
        assert stopped.data.loaded + resumed.data.loaded == whole.data.loaded
    for name in ("model.pt", "model_last.pt"):
        assert torch.equal(*(torch.load(tmp_path / run / name)["weight"] for run in ("whole", "parts")))


def test_validation_that_was_stopped_is_done_again(tmp_path):
    whole, stopped = EpisodeRun(tmp_path / "whole"), EpisodeRun(tmp_path / "parts")
    whole.trainer.run()

    def stop(engine):
        stopped.evaluator.should_terminate = True
        engine.terminate()

    # Between the validation, which is attached first, and the checkpoint.
    stopped.trainer._event_handlers[Events.EPOCH_COMPLETED].insert(1, (stop, (stopped.trainer,), {}))
    stopped.trainer.run()
    assert torch.load(tmp_path / "parts/checkpoint.pt")["epoch"] == 0
    resumed = EpisodeRun(tmp_path / "parts")
    resumed.trainer.run()
    assert resumed.validations == whole.validations
    assert torch.equal(*(torch.load(tmp_path / run / "model.pt")["weight"] for run in ("whole", "parts")))


def test_checkpoint_killed_at_any_system_call_of_its_writing_resumes(tmp_path):
    whole = EpisodeRun(tmp_path / "whole", epochs=2)
    whole.trainer.run()
    calls = 0
    while True:
        calls += 1
        folder = tmp_path / str(calls)
        process = FORK.Process(target=train_until_call, args=(folder, calls))
        process.start()
        process.join()
        for path in folder.glob("[!.]*.pt"):
            torch.load(path)
        resumed = EpisodeRun(folder, epochs=2)
        resumed.trainer.run()
        assert resumed.network.weight.item() == whole.network.weight.item(), calls
        assert torch.equal(*(torch.load(path / "model.pt")["weight"] for path in (folder, tmp_path / "whole")))
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    # Two epochs of two checkpoints and two files of weights, each with several calls.
    assert calls > 30


def train_until_call(folder, number):
    """Train in a process that dies right before the n-th call that changes a file."""
    deadly = killer(number)
    os.fsync = deadly(os.fsync)
    torch.save = deadly(torch.save)
    for name in ("replace", "open", "unlink"):
        setattr(Path, name, deadly(getattr(Path, name)))
    EpisodeRun(folder, epochs=2).trainer.run()


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
