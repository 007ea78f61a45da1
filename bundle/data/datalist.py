"""From data set layouts to checked lists of pairs, split by patient, and back to a datalist file."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bundle.data.layouts import (
    KINDS,
    PAIRINGS,
    SECTIONS,
    find_dataset_json,
    is_learn2reg,
    learn2reg_sections,
    read_json,
    read_patients,
)
from bundle.data.pairing import check_mixture, mixed_pairs, pair_singles, repeat_problems, repeated_images
from bundle.data.splits import split_entries, tell_alike, tell_one_sided, tell_unlisted
from bundle.data.structures import complete_structures, structure_conflicts
from bundle.data.tasks import folder_reader
from bundle.data.validation import (
    PAIR_PATHS,
    Pair,
    Sections,
    clean_section,
    complete_patients,
    identify,
    leaks,
    missing_files,
)
from bundle.system.files import written_whole
from bundle.system.limits import expanded

FRACTIONS = (0.7, 0.15, 0.15)
NNUNET = "; of nnU-Net's folders, put imagesTr into images/ (its files without _0000) and labelsTr into labels/"
FOLDS = "move the entries of one fold to the list validation, and take the key out"
LIMITS: Mapping[str, int | None] = MappingProxyType({"training": None, "validation": 16, "test": 32})


def read_datalist(
    dataset_dir: str | Path,
    datalist: str | Path | None = None,
    *,
    pairing: str = "paired",
    fractions: Sequence[float] = FRACTIONS,
    limits: Mapping[str, int | None] = LIMITS,
    seed: int = 0,
    mixture: Mapping[str, float] | None = None,
) -> Sections:
    """Read a data set into lists of pairs.

    Single images form ordered pairs (moving, fixed): of different patients in one section or, for the pairing
    ``repeat``, of different images of one patient; always within one task. Pairs in a datalist stay as they are listed.
    Without a datalist, the folders say what there is (images of two sides, images, slices, or a folder of such folders,
    the tasks), or else a Learn2Reg dataset JSON does. Folders are split by patient. With one seed, ``repeat`` and
    ``fixed`` have the same split, so that repeat scans of patients held out of training can be tested.

    Args:
        dataset_dir: folder of the data set; relative paths of a datalist start here.
        datalist: JSON with the lists ``training``, ``validation`` and ``test`` in MONAI's style, or Learn2Reg's.
        pairing: for folders of fixed and moving images: ``paired`` (moving -> fixed of the same name), ``fixed`` or
            ``moving`` (only these images, between patients). ``repeat``, for single images of any layout and for the
            fixed images of such folders: repeat scans of one patient; a section without any has no pairs. Slices are
            pairs of neighbours for ``paired``, and single images otherwise.
        fractions: share of the patients in training, validation and test, if the folders are split.
        limits: most pairs sampled from the single images of a section, for each kind in a mixture; None or no key: all
            ordered pairs.
        seed: seed of the split and of the sampling.
        mixture: share of each kind of pair in training (:mod:`bundle.data.pairing`). It decides which kinds of pairs
            are formed from the training patients; None: those of the pairing.

    Returns:
        Pairs of each section: absolute paths ``fixed_image`` and ``moving_image``, where given ``fixed_label``,
        ``moving_label``, ``*_mask``, ``*_landmarks`` or ``landmarks`` (of the pair), ``task``, ``*_structures``
        (numbers by name, from the datalist or ``structures.json``); and always ``pair_id`` (unique, fit for a folder's
        name) and ``patient`` (tuple of the patients involved). An image of an unknown patient counts as a patient of
        its own.

    Raises:
        FileNotFoundError: when the folder or the datalist does not exist.
        ValueError: for everything else that is wrong, all in one message.
    """
    sections, problems = survey(
        dataset_dir, datalist, pairing=pairing, fractions=fractions, limits=limits, seed=seed, mixture=mixture
    )
    refuse(problems, dataset_dir)
    return sections


def refuse(problems: Sequence[str], dataset_dir: str | Path) -> None:
    """Raise a ``ValueError`` that names the problems of a data set, if there are any."""
    if len(problems) == 1:
        raise ValueError(problems[0])
    if problems:
        # The console shows one line, where line ends alone would separate nothing.
        raise ValueError(f"{len(problems)} problems in the data set {dataset_dir}:\n  " + ";\n  ".join(problems))


def survey(
    dataset_dir: str | Path,
    datalist: str | Path | None = None,
    *,
    pairing: str = "paired",
    fractions: Sequence[float] = FRACTIONS,
    limits: Mapping[str, int | None] = LIMITS,
    seed: int = 0,
    mixture: Mapping[str, float] | None = None,
) -> tuple[Sections, list[str]]:
    """Read a data set as far as it can be read; arguments and layout errors are those of :func:`read_datalist`.

    Returns:
        The pairs of each section, and the problems, one line each.
    """
    _check_limits(limits)
    if mixture is not None:
        check_mixture(mixture)
    entries, problems, split = read_entries(dataset_dir, datalist, pairing, fractions, seed)
    repeat = pairing == "repeat"
    problems += repeat_problems(entries) if repeat else []
    sections: Sections = {}
    for section in SECTIONS:
        images = [entry for entry in entries[section] if "image" in entry]
        source, limit = f"{seed}/{section}", limits.get(section)
        if mixture is not None and section == "training":
            problems += repeated_images(images)
            sections[section] = mixed_pairs(entries[section], mixture, limit, source, repeat, problems)
            continue
        sampled = pair_singles(images, limit, random.Random(source), repeat)
        sections[section] = [entry for entry in entries[section] if "image" not in entry] + sampled
        # After a split of folders, an image may be the only one of its task, beside pairs of other tasks.
        unused = not sections[section] if split else not sampled
        if images and unused and limit != 0 and not repeat:
            problems.append(
                f"{section}: single images of one patient form no pair; pairs need two patients (of one task)"
            )
    root = expanded(dataset_dir).absolute()
    problems += identify(sections, root) + structure_conflicts(sections)
    return sections, list(dict.fromkeys(problems))


def read_entries(
    dataset_dir: str | Path, datalist: str | Path | None, pairing: str, fractions: Sequence[float], seed: int
) -> tuple[Sections, list[str], bool]:
    """Read the entries of a data set before pairs are formed; the arguments are those of :func:`read_datalist`.

    Returns:
        Single images and pairs of each section, with patients and structures; the problems, one line each; and
        whether folders were split rather than a datalist read.

    Raises:
        FileNotFoundError: when the folder or the datalist does not exist.
        ValueError: for a layout that is none, or options that are not as expected.
    """
    root = expanded(dataset_dir).absolute()
    if not root.is_dir():
        raise FileNotFoundError(f"dataset_dir is not a folder: {root}; give the folder that holds the images")
    _check_options(pairing, fractions)
    problems: list[str] = []
    patients = read_patients(root, problems)
    reader = None if datalist else folder_reader(root)
    if reader:
        listed: Mapping[str, Any] = split_entries(reader(root, pairing, patients, problems), pairing, fractions, seed)
    else:
        listed = _listed_entries(_find(datalist, root) if datalist else find_dataset_json(root), root)
    entries = {section: clean_section(section, listed.get(section, []), root, problems) for section in SECTIONS}
    tell_unlisted(entries, patients)
    complete_patients(entries, patients, root)
    complete_structures(entries, root, problems)
    tell_one_sided(entries)
    tell_alike(entries)
    return entries, problems + missing_files(entries) + leaks(entries), reader is not None


def _check_options(pairing: str, fractions: Sequence[float]) -> None:
    if pairing not in PAIRINGS:
        raise ValueError(f"pairing is {pairing!r}, expected one of {', '.join(PAIRINGS)}")
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            f"fractions are {list(fractions)}, expected three shares ({', '.join(SECTIONS)}) that sum to 1"
        )


def _check_limits(limits: Mapping[str, int | None]) -> None:
    if not isinstance(limits, Mapping):
        raise ValueError(f"limits is {limits!r}, expected numbers of pairs by section, such as {{'test': 32}}")
    for section, limit in limits.items():
        if section not in SECTIONS or not (limit is None or isinstance(limit, int) and limit >= 0):
            raise ValueError(f"limits has {section!r}: {limit}, expected {', '.join(SECTIONS)}: a number >= 0 or None")


def _find(datalist: str | Path, root: Path) -> Path:
    """Find a datalist by its path as it is, or else relative to the data set."""
    path = expanded(datalist)
    return path if path.is_file() or not (root / path).is_file() else root / path


def _listed_entries(path: Path, root: Path) -> Mapping[str, Any]:
    content = read_json(path)
    if is_learn2reg(content):
        return learn2reg_sections(content, root)
    # A misspelt section would be left out silently: descriptive keys do not hold lists of objects.
    unknown = [
        key
        for key, value in content.items()
        if key not in SECTIONS and isinstance(value, list) and any(isinstance(entry, dict) for entry in value)
    ]
    if unknown or not any(section in content for section in SECTIONS):
        found = ", ".join(map(repr, unknown or content)) or "nothing"
        advice = NNUNET if "file_ending" in content else ""
        raise ValueError(f"datalist {path} has {found}, expected lists under {', '.join(SECTIONS)}{advice}")
    lists = [entries for section in SECTIONS if isinstance(entries := content.get(section), list)]
    if any("fold" in entry for entries in lists for entry in entries if isinstance(entry, dict)):
        raise ValueError(f"datalist {path} has the key fold, as MONAI writes it; {FOLDS}")
    return content


def write_datalist(
    path: str | Path, sections: Mapping[str, Sequence[Mapping[str, Any]]], dataset_dir: str | Path
) -> None:
    """Write pairs, or single images, as a datalist that reads back as the same.

    The file appears complete or not at all.

    Args:
        path: the JSON file; its folder is created if needed.
        sections: pairs of each section, as read.
        dataset_dir: folder of the data set; paths below it are written relative to it.

    Raises:
        OSError: when the file cannot be written.
    """
    root, path = expanded(dataset_dir).absolute(), expanded(path)
    lists = [
        f"{json.dumps(section)}: [\n" + ",\n".join(json.dumps(_portable(pair, root)) for pair in pairs) + "\n]"
        for section, pairs in sections.items()
    ]
    with written_whole(path) as file:
        file.write("{\n" + ",\n".join(lists) + "\n}\n")


def _portable(pair: Mapping[str, Any], root: Path) -> Pair:
    """An entry with paths relative to the data set where they lie in it."""
    inside = {key for key in (*KINDS, *PAIR_PATHS) if key in pair and Path(pair[key]).is_relative_to(root)}
    return {key: Path(value).relative_to(root).as_posix() if key in inside else value for key, value in pair.items()}


def announce(pairs: Sequence[Any], most: int = 50) -> None:
    """If a folder makes many pairs, say how many, and how to choose among them."""
    if len(pairs) > most:
        print(
            f"{len(pairs)} pairs: the folder has no datalist, so all that it forms are registered; "
            "--datalist names those you want, --pair_limits::test 20 draws some of those that single images form"
        )
