"""How good a registration is: the measures that a report shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """How good a registration is.

    Attributes:
        key: name in files.
        title: name for people, with its unit.
        column: of ``metrics_row``, with ``{}`` for ``before`` or ``after``.
        digits: worth showing.
        higher_is_better: True for a DSC, False for a distance.
    """

    key: str
    title: str
    column: str
    digits: int
    higher_is_better: bool = False

    @property
    def name(self) -> str:
        """The title without its unit."""
        return self.title.split(" (")[0]

    @property
    def stem(self) -> str:
        """The key without its unit, as a part of file names."""
        return self.key.removesuffix("_mm").removesuffix("_px")


DSC = Measure("dsc", "DSC", "dsc_{}", 3, higher_is_better=True)
TRE = Measure("tre_mm", "TRE (mm)", "tre_rms_{}_mm", 2)
HD95 = Measure("hd95_mm", "HD95 (mm)", "hd95_{}_mm", 2)
DISTANCE = Measure("distance_px", "distance (px of 400)", "distance_grid_{}_px", 2)
INVERSE_DISTANCE = Measure(
    "inverse_distance_px", "distance in the fixed image (px of 400)", "distance_fixed_grid_{}_px", 2
)
NCC = Measure("ncc", "NCC", "ncc_{}", 3, higher_is_better=True)
LOSS = Measure("loss", "loss", "loss_{}", 4)
MEASURES = {measure.key: measure for measure in (DSC, TRE, HD95, DISTANCE, INVERSE_DISTANCE, NCC)}
