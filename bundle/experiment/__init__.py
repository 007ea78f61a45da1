"""Several trainings and registrations compared: plan, runs, results, statistics, figures, report."""

from typing import TYPE_CHECKING

from bundle.system.on_demand import on_demand

if TYPE_CHECKING:
    from bundle.experiment.experiment import Experiment
    from bundle.experiment.report import Evaluation, write_report
    from bundle.experiment.statistics import compare_paired, summarise
else:
    __getattr__, __dir__ = on_demand(__name__, __file__)

__all__ = [
    "Evaluation",
    "Experiment",
    "compare_paired",
    "summarise",
    "write_report",
]
