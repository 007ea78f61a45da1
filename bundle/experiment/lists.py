"""The lists of pairs of an experiment: where they come from, and the files that its runs read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle import system  # whose fingerprint is imported when it is used, with torch
from bundle.data import SECTIONS, read_datalist, require, write_datalist
from bundle.experiment.maps import map_trainings
from bundle.experiment.plan import list_name, needed_sections, registrations
from bundle.experiment.runs import Plan, slug
from bundle.system.limits import expanded


@dataclass(frozen=True)
class PairLists:
    """The lists that trainings and evaluations use.

    Args:
        plan: plan of the experiment.
        dataset_dir: folder of images.
        output_dir: where the lists are written.

    Attributes:
        made_of: fingerprint of every list that was written, with the content of its files.
        patients: those of every section of every list that was written, by their names below the list's folder.

    Raises:
        ValueError: when the command line does not say where a list is read from.
    """

    plan: Plan
    dataset_dir: Path
    output_dir: Path
    made_of: dict[str, str] = field(default_factory=dict, init=False)
    patients: dict[str, dict[str, set[Path]]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        for name in needed_sections(self.plan):
            self.folders(name)

    def folders(self, name: str) -> list[Path]:
        """Folders from which a list of pairs is read.

        Raises:
            ValueError: when the command line does not say where they are.
        """
        roots: dict[str, Any] = {"dataset_dir": self.dataset_dir, "target_dir": self.plan.get("target_dir")}
        found = []
        for folder in self.plan["lists"][name].get("folders", ["dataset_dir"]):
            root, *inner = folder.split("/")
            given = roots[root]
            if not given:
                raise ValueError(f"lists: {name!r} is read from {folder}, but there is no {root}; add --{root} FOLDER")
            found.append(expanded(Path(given, *inner)).absolute())
        return found

    def root(self, name: str) -> Path:
        """Folder that the paths of a list are relative to."""
        return Path(os.path.commonpath(self.folders(name)))

    def write(self) -> dict[str, Path]:
        """Write the lists of pairs that trainings and evaluations use. Lists of one folder share one split by patient.

        If no test patient has repeat scans, their list is left out, with a message.
        """
        lists: dict[str, Path] = {}
        read: dict[str, dict[str, list[dict[str, Any]]]] = {}  # all, before the first is written
        for name, needed in needed_sections(self.plan).items():
            try:
                sections = self.read(name)
                require(sections, *(section for section in needed if section != "validation"))
            except ValueError as error:
                if "training" in needed or self.plan["lists"][name].get("pairing") != "repeat":
                    raise ValueError(f"lists: {name!r}: {error}") from error
                print(f"{name}: left out ({error})")
            else:
                read[name] = {section: sections[section] for section in needed}
        self._refuse_other_images(read)
        for name, pairs in read.items():
            lists[name] = self.output_dir / f"{slug(name)}.json"
            write_datalist(lists[name], pairs, self.root(name))
            files = [system.sources(pair) for found in pairs.values() for pair in found]
            self.made_of[str(lists[name])] = system.fingerprint(files)
            self.patients[name] = {
                section: {self.root(name) / patient for pair in found for patient in pair["patient"]}
                for section, found in pairs.items()
            }
        for line in self.learned_from():
            print(line)
        return lists

    def _refuse_other_images(self, read: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> None:
        """Refuse results of other images of the same names, beside which a pair has another name in some runs only."""
        from bundle.results.resume import would_replace

        for title, evaluation in self.plan["evaluations"].items():
            pairs = read.get(list_name("evaluations", evaluation), {}).get("test", [])
            runs = sorted((self.output_dir.parent / "results" / slug(title)).glob("*"))
            for run in (run for run in runs if any(would_replace(pair, run) for pair in pairs)):
                raise ValueError(f"{run} holds results of other images of these names; choose another output_dir")

    def learned_from(self) -> list[str]:
        """Sentences about the trainings whose weights or maps have learned from patients that they are tested on.

        The split keeps them apart, but a list may have a split or a datalist of its own, or mean to show it.
        """
        found: dict[str, None] = {}
        for title, evaluation in self.plan["evaluations"].items():
            tested = self.patients.get(list_name("evaluations", evaluation), {}).get("test", set())
            methods = (self.plan["methods"][name] for name, _ in registrations(self.plan, title))
            for training in dict.fromkeys(name for one in methods for name in _chain(self.plan, one.get("training"))):
                source = self.patients.get(list_name("trainings", self.plan["trainings"][training]), {})
                both = len(tested & source.get("training", set()))
                if both:
                    found[f"{title}: the training {training!r} has {both} of the {len(tested)} test patients."] = None
        return list(found)

    def read(self, name: str) -> dict[str, list[dict[str, Any]]]:
        """Pairs of a list by section; pairs of several folders carry the names of their folders."""
        choices = {key: self.plan[key] for key in ("datalist", "pairing", "split", "pair_limits")}
        choices |= self.plan["lists"][name]
        folders = self.folders(name)
        joined: dict[str, list[dict[str, Any]]] = {section: [] for section in SECTIONS}
        for folder in folders:
            sections = read_datalist(
                folder,
                choices["datalist"],
                pairing=choices["pairing"],
                fractions=choices["split"],
                limits=choices["pair_limits"],
                seed=self.plan["seed"],
                mixture=choices.get("mixture"),
            )
            for section, pairs in sections.items():
                own = folder.relative_to(self.root(name)).parts or (folder.name,)
                joined[section] += pairs if len(folders) == 1 else [_of_folder(own, pair) for pair in pairs]
        return joined


def _of_folder(folder: Sequence[str], pair: Mapping[str, Any]) -> dict[str, Any]:
    """A pair of one of several folders, named after its folder: 001 is a different image in each."""
    patients = tuple("/".join([*folder, patient]) for patient in pair["patient"])
    return {**pair, "pair_id": "_".join([*folder, pair["pair_id"]]), "patient": patients}


def _chain(plan: Plan, training: str | None) -> list[str]:
    """A training, and those that its start and its maps come from."""
    if training is None:
        return []
    entry = plan["trainings"][training]
    before = [entry.get("start"), *map_trainings(entry).values()]
    return [training, *(name for each in before for name in _chain(plan, each))]
