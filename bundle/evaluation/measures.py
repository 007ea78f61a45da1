"""How good a registration is: the measures that a report shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """How good a registration is.

    Attributes:
        key: name in files.
        title: name for people, with its unit.
        column: of ``metrics_row``, with ``{}`` for ``before`` or ``after``; without it what only a registration has.
        digits: worth showing.
        higher_is_better: True for a DSC, False for a distance.
    """

    key: str
    title: str
    column: str
    digits: int
    higher_is_better: bool = False

    def at(self, when: str) -> str | None:
        """Column of the values ``before`` or ``after``; None where there are none before."""
        return self.column.format(when) if "{}" in self.column or when == "after" else None

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
WARPED_CENTROID = Measure("warped_centroid_mm", "distance of warped centroids (mm)", "warped_centroid_rms_{}_mm", 2)
CENTRE = Measure("centre_mm", "distance of centres (mm)", "centre_{}_mm", 2)
HD95 = Measure("hd95_mm", "HD95 (mm)", "hd95_{}_mm", 2)
DISTANCE = Measure("distance_px", "distance (px of 400)", "distance_grid_{}_px", 2)
INVERSE_DISTANCE = Measure(
    "inverse_distance_px", "distance in the fixed image (px of 400)", "distance_fixed_grid_{}_px", 2
)
NCC = Measure("ncc", "NCC", "ncc_{}", 3, higher_is_better=True)
LOSS = Measure("loss", "loss", "loss_{}", 4)
INVERSE_CONSISTENCY = Measure("inverse_consistency_mm", "inverse consistency (mm)", "inverse_consistency_mm", 2)
SELF_MEAN = Measure("self_displacement_mm", "displacement on itself, mean (mm)", "self_displacement_mean_mm", 2)
SELF_MAX = Measure("self_displacement_max_mm", "displacement on itself, largest (mm)", "self_displacement_max_mm", 2)
MEASURES = {
    measure.key: measure
    for measure in (
        DSC,
        TRE,
        WARPED_CENTROID,
        CENTRE,
        HD95,
        DISTANCE,
        INVERSE_DISTANCE,
        NCC,
        INVERSE_CONSISTENCY,
        SELF_MEAN,
        SELF_MAX,
    )
}
