"""Is it right: overlap, landmarks, metrics, table, verdict."""

from typing import TYPE_CHECKING

from bundle.system.on_demand import on_demand

if TYPE_CHECKING:
    from bundle.evaluation.landmarks import target_registration_error
    from bundle.evaluation.measures import root_mean_square
    from bundle.evaluation.metrics import PairMetricsd
    from bundle.evaluation.metrics_table import ColumnMean, MetricsTable, SomePairsFailed
    from bundle.evaluation.quality import QualityVerdictd
    from bundle.evaluation.table import compare
else:
    __getattr__, __dir__ = on_demand(__name__, __file__)

__all__ = [
    "ColumnMean",
    "MetricsTable",
    "PairMetricsd",
    "QualityVerdictd",
    "SomePairsFailed",
    "compare",
    "root_mean_square",
    "target_registration_error",
]
