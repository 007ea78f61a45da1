"""Is it right."""

from bundle.evaluation.batch_page import QualityIndex
from bundle.evaluation.experiment import Experiment
from bundle.evaluation.experiment_report import Evaluation, write_report
from bundle.evaluation.landmark_metrics import root_mean_square
from bundle.evaluation.landmarks import read_landmarks, target_registration_error
from bundle.evaluation.metrics import PairMetricsd
from bundle.evaluation.page import QualityPaged
from bundle.evaluation.pdf import QualityPdfd
from bundle.evaluation.quality import QualityVerdictd
from bundle.evaluation.report import ColumnMean, MetricsTable, PairPictured
from bundle.evaluation.statistics import compare_paired, summarise
from bundle.evaluation.table import compare

__all__ = [
    "ColumnMean",
    "Evaluation",
    "Experiment",
    "MetricsTable",
    "PairMetricsd",
    "PairPictured",
    "QualityIndex",
    "QualityPaged",
    "QualityPdfd",
    "QualityVerdictd",
    "compare",
    "compare_paired",
    "read_landmarks",
    "root_mean_square",
    "summarise",
    "target_registration_error",
    "write_report",
]
