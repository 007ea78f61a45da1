"""Learning the start: rules, sampling, trainer, handlers."""

from bundle.meta.checkpoints import check_run
from bundle.meta.handlers import FiniteLoss, ProgressBar, ResumableCheckpoint, keeps_curves
from bundle.meta.objectives import SymmetricObjective
from bundle.meta.rules import first_order_maml, reptile
from bundle.meta.sampling import EpisodeSampler
from bundle.meta.step_sizes import LearnedStepSizes
from bundle.meta.trainer import ReptileTrainer

__all__ = [
    "EpisodeSampler",
    "FiniteLoss",
    "LearnedStepSizes",
    "ProgressBar",
    "ReptileTrainer",
    "ResumableCheckpoint",
    "SymmetricObjective",
    "check_run",
    "first_order_maml",
    "keeps_curves",
    "reptile",
]
