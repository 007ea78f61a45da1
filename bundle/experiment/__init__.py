"""Several trainings and registrations compared: plan, runs, results, statistics, figures, report."""

from bundle.experiment.experiment import Experiment
from bundle.experiment.report import Evaluation, write_report
from bundle.experiment.statistics import compare_paired, summarise

__all__ = [
    "Evaluation",
    "Experiment",
    "compare_paired",
    "summarise",
    "write_report",
]
