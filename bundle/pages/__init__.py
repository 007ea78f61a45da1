"""What people look at: overview, page of a pair, page of a run, PDF."""

from bundle.pages.batch_page import QualityIndex
from bundle.pages.overview import PairPictured
from bundle.pages.page import QualityPaged
from bundle.pages.pdf import QualityPdfd

__all__ = [
    "PairPictured",
    "QualityIndex",
    "QualityPaged",
    "QualityPdfd",
]
