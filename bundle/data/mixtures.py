"""Mixtures: which kinds of pairs a training draws, and how often."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from bundle.data.entries import Pair
from bundle.data.singles import pair_singles, self_pair, single_images
from bundle.data.structures import one_patient

NEEDS = {
    "between": "needs single images of two patients of one task",
    "repeat": "needs two single images of one patient, which patients.csv or the entries' patient name",
    "self": "needs images",
    "paired": "needs pairs, or single images that form pairs by the pairing",
}
"""Kinds of pairs, and what has to be there for one."""


def pair_kind(pair: Mapping[str, Any]) -> str:
    """What a pair is: ``self`` of one image twice, ``repeat`` of one patient, else ``between`` patients."""
    if pair["fixed_image"] == pair["moving_image"]:
        return "self"
    return "repeat" if one_patient(pair) else "between"


def check_mixture(mixture: Mapping[str, float]) -> None:
    """Refuse what is no mixture.

    Raises:
        ValueError: when a kind is unknown, the shares do not sum to 1, or ``paired``, which stands for the pairs of
            two images whatever they are, is mixed with ``between`` or ``repeat``.
    """
    shares = list(mixture.values())
    numbers = all(isinstance(share, int | float) and share >= 0 for share in shares)
    if not mixture.keys() <= NEEDS.keys() or not numbers or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"mixture is {dict(mixture)}, expected shares of {', '.join(NEEDS)} that sum to 1")
    if "paired" in mixture and not mixture.keys().isdisjoint({"between", "repeat"}):
        raise ValueError(
            f"mixture is {dict(mixture)}; 'paired' stands for all pairs of two images, as the data lists or the "
            "pairing forms them: mix it with 'self' only"
        )


def of_kinds(pairs: Sequence[Mapping[str, Any]], mixture: Mapping[str, float]) -> dict[str, list[int]]:
    """Positions of the pairs of each kind that a mixture has a share of.

    Args:
        pairs: the pairs.
        mixture: share of each kind.

    Returns:
        Positions by kind, in the order of the mixture.
    """
    found: dict[str, list[int]] = {kind: [] for kind, share in mixture.items() if share > 0}
    for index, pair in enumerate(pairs):
        kind = pair_kind(pair)
        kind = "paired" if kind != "self" and "paired" in mixture else kind
        if kind in found:
            found[kind].append(index)
    return found


def mixed_pairs(
    entries: Sequence[Pair],
    mixture: Mapping[str, float],
    limit: int | None,
    seed: str,
    repeat: bool,
    problems: list[str],
) -> list[Pair]:
    """Pairs of every kind of a mixture, formed of the entries of one section.

    Single images form pairs between patients, within patients and with themselves, images of listed pairs only with
    themselves; listed pairs stay as they are where their kind has a share. Where such pairs of images with themselves
    are listed, as in the datalist of an earlier run, no more are made.

    Args:
        entries: single images and pairs, with their patients.
        mixture: share of each kind.
        limit: most pairs formed of each kind, drawn without replacement; None: all.
        seed: seed of the draws.
        repeat: whether ``paired`` single images form pairs within patients, else between them.
        problems: takes up what is wrong: a kind with a share but without a pair.

    Returns:
        Pairs, without ``pair_id`` where they are formed.
    """
    images = [entry for entry in entries if "image" in entry]
    pairs = [entry for entry in entries if "image" not in entry]
    listed = {pair_kind(pair) for pair in pairs}
    for kind, within in {"between": False, "repeat": True, "paired": repeat}.items():
        if mixture.get(kind, 0) > 0:
            # Pairs between patients are those of a training without a mixture.
            draw = random.Random(seed if not within else f"{seed}/repeat")
            pairs += pair_singles(images, limit, draw, within)
    if mixture.get("self", 0) > 0 and "self" not in listed:
        alone = single_images(entries, problems)
        few = limit is not None and limit < len(alone)
        pairs += map(self_pair, random.Random(f"{seed}/self").sample(alone, limit or 0) if few else alone)
    kinds = of_kinds(pairs, mixture)
    if limit != 0:
        problems += [
            f"mixture gives {kind} a share of {mixture[kind]:g}, but there is no such pair to train on: it "
            f"{NEEDS[kind]}; add them, or leave {kind} out of the mixture"
            for kind, members in kinds.items()
            if not members
        ]
    return [pairs[index] for index in sorted(index for members in kinds.values() for index in members)]
