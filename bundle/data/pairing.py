"""Single images, and the pairs formed from them: between patients, of repeat scans, of one image with itself."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from bundle.data.layouts import KINDS, SECTIONS, SIDES
from bundle.data.structures import STRUCTURES, one_patient
from bundle.data.validation import Pair, Sections
from bundle.system.limits import first_paths

NEEDS = {
    "between": "needs single images of two patients of one task",
    "repeat": "needs two single images of one patient, which patients.csv or the entries' patient name",
    "self": "needs images",
    "paired": "needs pairs, or single images that form pairs by the pairing",
}
"""Kinds of pairs, and what each needs."""


def repeated_images(entries: Sequence[Pair]) -> list[str]:
    """Single images that are listed twice, and would form repeat pairs with themselves.

    Args:
        entries: pairs and single images.

    Returns:
        Problems, one line each.
    """
    images = [entry["image"] for entry in entries if "image" in entry]
    first = first_paths(images)
    listed = Counter(first[image] for image in images)
    return [f"image listed {count} times: {path}; list each image once" for path, count in listed.items() if count > 1]


def repeat_problems(sections: Sections) -> list[str]:
    """What keeps single images from forming pairs within patients.

    Args:
        sections: entries of each section, with their patients.

    Returns:
        Problems, one line each: an image listed twice, and no pair at all.
    """
    entries = [entry for section in SECTIONS for entry in sections[section]]
    singles = [entry for entry in entries if "image" in entry]
    problems = repeated_images(singles)
    scans = Counter(_source(entry) for entry in singles)
    # Listed pairs are kept as they are: if there are any, there is something to register.
    if singles and len(singles) == len(entries) and max(scans.values()) == 1:
        patients = {entry["patient"] for entry in singles}
        problems.append(
            f"no patient has two images: {len(singles)} image(s) of {len(patients)} patient(s); the pairing 'repeat' "
            "needs repeat scans, with patients.csv or the entries' patient saying whose they are"
        )
    return problems


def single_images(entries: Iterable[Pair], problems: list[str], sides: Sequence[str] = SIDES) -> list[Pair]:
    """The images of single images and pairs, each once, with what belongs to it.

    Args:
        entries: single images and pairs, with their patients; those of a pair are (moving, fixed).
        problems: list to which problems are added: an image with two patients, labels or the like.
        sides: sides of the pairs whose images are taken.

    Returns:
        Single images, in the order in which they are first named.
    """
    found: dict[str, Pair] = {}
    for entry in entries:
        for image in [entry] if "image" in entry else [_side(entry, side) for side in sides]:
            known = found.setdefault(image["image"], image)
            problems += [
                f"image {image['image']} has the {key} {known[key]!r} in one entry and {image[key]!r} in another; "
                "give it one (the patients of a pair are those of the moving and the fixed image, in this order)"
                for key in sorted(known.keys() & image.keys())
                if known[key] != image[key]
            ]
            found[image["image"]] = image | known
    return list(found.values())


def _side(pair: Pair, side: str) -> Pair:
    """One image of a pair as a single image."""
    kept = {kind: pair[f"{side}_{kind}"] for kind in (*KINDS, STRUCTURES) if f"{side}_{kind}" in pair}
    task = {"task": pair["task"]} if "task" in pair else {}
    return kept | {"patient": (pair["patient"][0 if side == "moving" else -1],)} | task


def pair_singles(images: Sequence[Pair], limit: int | None, rng: random.Random, repeat: bool) -> list[Pair]:
    """Ordered pairs (moving, fixed) of images of one task: of different patients, or of one patient.

    The images are sorted by task and patient, and the pairs are numbered. The partners of moving image ``i`` are a span
    of images with a gap: its task without its own patient's block, or that block without ``i``. A sample draws numbers,
    so that no list of all pairs is made.

    Args:
        images: single images with ``image``, the files that belong to it, ``patient``, and ``task`` if they have one.
        limit: most pairs, drawn without replacement; None: all.
        rng: random numbers of the draw.
        repeat: whether the pairs are within patients.

    Returns:
        Pairs, without ``pair_id``.
    """
    images = sorted(images, key=_source)
    of_patient, of_task = _blocks([_source(image) for image in images]), _blocks([_task(image) for image in images])
    spans = [(of_patient[i], (i, i + 1)) if repeat else (of_task[i], of_patient[i]) for i in range(len(images))]
    ends = list(accumulate(last - first - (stop - start) for (first, last), (start, stop) in spans))
    total = ends[-1] if ends else 0
    chosen = range(total) if limit is None or limit >= total else sorted(rng.sample(range(total), limit))
    pairs = []
    for number in chosen:
        moving = bisect_right(ends, number)
        (first, _), (start, stop) = spans[moving]
        fixed = first + number - (ends[moving - 1] if moving else 0)
        pairs.append(_pair(images[moving], images[fixed if fixed < start else fixed + stop - start]))
    return pairs


def _pair(moving: Pair, fixed: Pair) -> Pair:
    sides = (("fixed", fixed), ("moving", moving))
    paths = {f"{side}_{kind}": image[kind] for kind in (*KINDS, STRUCTURES) for side, image in sides if kind in image}
    task = {"task": moving["task"]} if "task" in moving else {}
    return paths | {"patient": tuple(dict.fromkeys(moving["patient"] + fixed["patient"]))} | task


def _task(image: Pair) -> str:
    return image.get("task", "")


def _source(image: Pair) -> tuple[str, tuple[str, ...]]:
    return _task(image), image["patient"]


def _blocks(values: Sequence[Any]) -> list[tuple[int, int]]:
    """First and last index + 1 of the values that equal each, in a sorted list."""
    return [(bisect_left(values, value), bisect_right(values, value)) for value in values]


def pair_kind(pair: Mapping[str, Any]) -> str:
    """Kind of a pair: ``self`` for one image twice, ``repeat`` for one patient, else ``between`` patients."""
    if pair["fixed_image"] == pair["moving_image"]:
        return "self"
    return "repeat" if one_patient(pair) else "between"


def check_mixture(mixture: Mapping[str, float]) -> None:
    """Refuse an invalid mixture.

    Raises:
        ValueError: when a kind is unknown, the shares do not sum to 1, or ``paired``, which stands for any pairs of two
            images, is mixed with ``between`` or ``repeat``.
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
    """Positions of the pairs of each kind with a share in a mixture.

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
    """Pairs of every kind of a mixture, formed from the entries of one section.

    Single images form pairs between patients, within patients and with themselves; images of listed pairs only form
    pairs with themselves. Listed pairs stay as they are if their kind has a share. If pairs of images with themselves
    are listed, as in the datalist of an earlier run, no more are formed.

    Args:
        entries: single images and pairs, with their patients.
        mixture: share of each kind.
        limit: most pairs formed of each kind, drawn without replacement; None: all.
        seed: seed of the draws.
        repeat: whether ``paired`` single images form pairs within patients, else between them.
        problems: list to which problems are added: a kind with a share but without a pair.

    Returns:
        Pairs; those formed here have no ``pair_id``.
    """
    images = [entry for entry in entries if "image" in entry]
    pairs = [entry for entry in entries if "image" not in entry]
    listed = {pair_kind(pair) for pair in pairs}
    for kind, within in {"between": False, "repeat": True, "paired": repeat}.items():
        if mixture.get(kind, 0) > 0:
            # Pairs between patients are the same as in a training without a mixture.
            draw = random.Random(seed if not within else f"{seed}/repeat")
            pairs += pair_singles(images, limit, draw, within)
    if mixture.get("self", 0) > 0 and "self" not in listed:
        alone = single_images(entries, problems)
        few = limit is not None and limit < len(alone)
        chosen = random.Random(f"{seed}/self").sample(alone, limit or 0) if few else alone
        pairs += [_pair(image, image) for image in chosen]  # both sides, which the augmentation deforms differently
    kinds = of_kinds(pairs, mixture)
    if limit != 0:
        problems += [
            f"mixture gives {kind} a share of {mixture[kind]:g}, but there is no such pair to train on: it "
            f"{NEEDS[kind]}; add them, or leave {kind} out of the mixture"
            for kind, members in kinds.items()
            if not members
        ]
    return [pairs[index] for index in sorted(index for members in kinds.values() for index in members)]
