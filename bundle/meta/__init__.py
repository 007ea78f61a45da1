"""Learning the start."""

from bundle.meta.handlers import ProgressBar, ResumableCheckpoint
from bundle.meta.rules import first_order_maml, reptile
from bundle.meta.sampling import EpisodeSampler
from bundle.meta.trainer import ReptileTrainer

__all__ = [
    "EpisodeSampler",
    "ProgressBar",
    "ReptileTrainer",
    "ResumableCheckpoint",
    "first_order_maml",
    "reptile",
]
