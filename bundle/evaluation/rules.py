"""What makes a registration doubtful: the quantities that a verdict looks at, and what it says about them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from bundle.evaluation.measures import (
    BORDER,
    DSC,
    FIELDS_OF_VIEW,
    FOLDED,
    LARGEST,
    LOG_JACOBIAN_SD,
    LOSS,
    PREDICTED,
    SIMILARITY,
    TRE,
    Measure,
    Metrics,
    numbered,
)


@dataclass(frozen=True)
class Rule:
    """Something that makes a registration doubtful.

    Attributes:
        title: name of the quantity, for people.
        value: metrics of a pair -> the quantity; None if the pair does not have it.
        sentence: text about a value beyond a limit, with ``{value}``, ``{unit}`` and ``{named}``.
        advice: what to do about it.
        unit: unit of the value; lengths of pictures are in pixels.
        digits: decimals of the value.
        least: whether the limits are lower limits rather than upper ones.
        named: metrics of a pair -> names of what the value counts.
    """

    title: str
    value: Callable[[Metrics], float | None]
    sentence: str
    advice: str
    unit: str = ""
    digits: int = 1
    least: bool = False
    named: Callable[[Metrics], str] = lambda metrics: ""


def _rule(measure: Measure, sentence: str, advice: str, least: bool = False) -> dict[str, Rule]:
    """A rule for the value of a measure after registration, under its key."""
    rule = Rule(measure.title, measure.after, sentence, advice, measure.unit, measure.digits, least)
    return {measure.key: rule}


def _similarity_gain(metrics: Metrics) -> float | None:
    worse = SIMILARITY.worsening(metrics)
    return None if worse is None else -100 * worse / max(abs(SIMILARITY.of(metrics)["before"]), 1e-6)


def _loss_rise(metrics: Metrics) -> float | None:
    losses = metrics["loss"]
    return losses[-1] - losses[0] if len(losses) > 1 else None


def _lost_landmarks(metrics: Metrics) -> float | None:
    return len(metrics["lost_landmarks"]) if "lost_landmarks" in metrics else None


def _lost_names(metrics: Metrics) -> str:
    lost = metrics.get("lost_landmarks", {})
    return "; ".join(f"{numbered('landmark', name)} {what}" for name, what in lost.items())


def score(metrics: Metrics) -> float | None:
    """How good a registration is likely to be, without its labels; higher is better.

    ``score = predicted_overlap * certainty(fixed) * certainty(moving)``: that maps overlap says little if one of them
    is vague, or another network would have made another (``bundle.maps.certainty``).

    Args:
        metrics: metrics of a pair; ``predicted_overlap`` and ``certainty``, 0 to 1, if the anatomy was predicted.

    Returns:
        0 to 1; None without such maps.
    """
    overlap = PREDICTED.after(metrics)
    return None if overlap is None else overlap * math.prod(metrics["certainty"].values())


RULES = {
    "similarity_gain_percent": Rule(
        "gain of similarity",
        _similarity_gain,
        "the similarity of the images changed by {value} %",
        "look at the difference before and after; try more steps, another similarity or weights for such images",
        "%",
        least=True,
    ),
    "loss_rise": Rule(
        "rise of the loss over the steps",
        _loss_rise,
        "the loss rose by {value} over the steps; the best of their fields was kept",
        "lower inner_lr, or try fewer steps",
        digits=LOSS.digits,
    ),
    "lost_steps": Rule(
        "steps lost to numbers that are not finite",
        lambda metrics: metrics.get("adaptation", {}).get("lost_steps"),
        "{value} of the steps led to a loss or gradient that is not finite; the best field before was kept",
        "lower inner_lr, or check the images",
        digits=0,
    ),
    "moved_mm": Rule(
        "what was moved at all",
        LARGEST.after,
        "nothing was moved, the result is the initial alignment: the largest displacement is {value} {unit}",
        "were the images aligned before? If not, try more steps, or weights for such images",
        LARGEST.unit,
        digits=3,
        least=True,
    ),
    **_rule(
        FOLDED, "{value} % of the voxels fold", "raise regularisation_weight, or set integration_steps in training"
    ),
    **_rule(
        BORDER,
        "the border of the fixed image moves by {value} {unit}",
        "the initial alignment may be off, or tissue has entered or left the image",
    ),
    **_rule(
        LARGEST,
        "the largest displacement is {value} {unit}",
        "look where it is; is it more than anatomy can move?",
    ),
    **_rule(
        LOG_JACOBIAN_SD,
        "the field stretches space unevenly: the log-Jacobian has an SD of {value}",
        "raise regularisation_weight",
    ),
    **_rule(
        FIELDS_OF_VIEW,
        "only {value} % of the fixed image lies inside the moving image",
        "what lies outside is extrapolated; try another initial_alignment",
        least=True,
    ),
    "dsc_drop": Rule(
        "drop of the DSC",
        DSC.worsening,
        "the labels overlap less than before: their DSC fell by {value}",
        "trust the labels more than the images; look at the contours",
        DSC.unit,
        DSC.digits,
    ),
    "tre_rise_mm": Rule(
        "rise of the TRE",
        TRE.worsening,
        "landmarks are {value} {unit} further apart than before",
        "trust the landmarks more than the images, unless they have only a few voxels",
        TRE.unit,
        TRE.digits,
    ),
    "lost_landmarks": Rule(
        "landmarks missing, vanished or outside",
        _lost_landmarks,
        "not every landmark has its place in both images ({value} without one): {named}",
        "look at these landmarks; the TRE is over those that both images have",
        digits=0,
        named=_lost_names,
    ),
    **_rule(
        PREDICTED,
        "the predicted anatomy of the two images overlaps by only {value}",
        "look at the contours; try more steps, or weights for such images",
        least=True,
    ),
    "score": Rule(
        "score",
        score,
        "the maps of the anatomy are vague or disagree: the score is only {value}",
        "look at the contours; try weights for such images",
        digits=3,
        least=True,
    ),
}
