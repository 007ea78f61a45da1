"""Is it right."""

from bundle.evaluation.metrics import PairMetricsd, read_landmarks, root_mean_square, target_registration_error
from bundle.evaluation.report import ColumnMean, MetricsTable, PairPictured, compare

__all__ = [
    "ColumnMean",
    "MetricsTable",
    "PairMetricsd",
    "PairPictured",
    "compare",
    "read_landmarks",
    "root_mean_square",
    "target_registration_error",
]
