"""The comparisons of Baum et al. 2022 and Park et al. 2021: train every network, run every method, write the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle import system  # whose fingerprint is imported when it is used, with torch
from bundle.evaluation.measures import MEASURES
from bundle.experiment.maps import final_folders, fold_folders, is_of_maps, map_files, map_options
from bundle.experiment.plan import curve_points, kept_epochs, list_name, read_plan, registrations
from bundle.experiment.runs import (
    Curves,
    Evaluation,
    Run,
    find_weights,
    is_whole,
    methods_of,
    of_weights,
    programs,
    reference_of,
    registration_files,
    registration_options,
    run_of,
    slug,
    training_files,
)
from bundle.system import console, one_line, root_cause
from bundle.system.configurations import find_configurations
from bundle.system.files import written_whole

# What reads images, trains or draws is imported inside the methods: a wrong plan is refused before that takes time.


@dataclass
class Experiment:
    """One experiment on one data set; every training and every run of a method is kept and reused.

    Everything is a ``monai.bundle run`` of ``train.yaml`` or ``inference.yaml`` with overlays. So a method is a few
    lines of the configuration: the training that its weights come from, overlays, options and the number of steps.

    Args:
        config_files: ``configs/experiments/experiment.yaml``, and files that change it.
        dataset_dir: folder of images.
        output_dir: folder of the trainings, the results and the report.
        overrides: keys of the configuration with other values.

    Raises:
        ValueError: for a key or a name that the configuration does not have, and for a missing folder.
    """

    config_files: Sequence[str]
    dataset_dir: Path
    output_dir: Path
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.plan = read_plan(self.config_files, self.overrides)
        from bundle.experiment.lists import PairLists

        self.lists = PairLists(self.plan, self.dataset_dir, self.output_dir / "pairs")
        self.workflows: dict[Path, int] = {}  # by their folders, numbered
        self.incomplete: list[str] = []  # folders of runs without some of their pairs, and why

    def run(self) -> Path:
        """Do everything that is not done yet.

        Returns:
            The report, ``report.html``.

        Raises:
            RuntimeError: when a run registered some of its pairs only; the report is written, and names them.
        """
        from bundle.experiment.report import write_report

        lists = self.lists.write()
        self.incomplete = []
        self.workflows = {folder: number for number, folder in enumerate(self._folders(lists), start=1)}
        for name in self.plan["trainings"]:
            self.train(name, lists)
        evaluations = [
            self.evaluate(title, lists)
            for title, entry in self.plan["evaluations"].items()
            if list_name("evaluations", entry) in lists
        ]
        folder, notes = self.plan["report_dir"] or self.output_dir, [*self.plan["notes"], *self.lists.learned_from()]
        report = write_report(Path(folder).absolute(), evaluations, self.plan["title"], notes)
        if self.incomplete:
            number, what = len(self.incomplete), f"pairs, which {report} names; the same command tries them again"
            raise RuntimeError(f"{number} of {len(self.workflows)} runs lack {what} ({self.incomplete[0]})")
        return report

    def _folders(self, lists: Mapping[str, Path]) -> dict[Path, None]:
        """Folders of all trainings and registrations, in the order in which they are made."""
        folders: list[Path] = []
        for name, training in self.plan["trainings"].items():
            if is_of_maps(training):
                for these in (fold_folders, final_folders):
                    folders += these(self.plan, name, self.training_folder)
            else:
                folders.append(self.training_folder(name))
        for title, entry in self.plan["evaluations"].items():
            if list_name("evaluations", entry) in lists:
                runs = (run_of(self.plan, *each) for each in registrations(self.plan, title))
                folders += (self.results_folder(title, made) for made in runs)
        return dict.fromkeys(folders)

    def train(self, name: str, lists: Mapping[str, Path]) -> None:
        """Train one network, or continue where its run stopped."""
        training = self.plan["trainings"][name]
        if is_of_maps(training):
            self.train_maps(name, lists)
            return
        pairs = list_name("trainings", training)
        folder = self.training_folder(name)
        options = {
            "dataset_dir": str(self.lists.root(pairs)),
            "datalist": str(lists[pairs]),
            "output_dir": str(folder),
            "seed": self.plan["seed"],
            "cache_dir": str(self.output_dir / "cache"),
            **self.plan["training_options"],
            **map_options(self.plan, training, self.training_folder, folds=True),
            "mixture": self.plan["lists"][pairs].get("mixture"),
            **training.get("options", {}),
        }
        if training.get("start"):
            options["start_weights"] = str(self.weights(training["start"]))
        elif options.get("start_weights"):
            options["start_weights"] = str(find_weights(options["start_weights"]))
        kept = [epoch for epoch in kept_epochs(self.plan, name) if epoch > 0]
        if kept:
            options["kept_epochs"] = kept
        files = _configurations(training_files(self.plan, training))
        self.once(folder / "finished.json", "training", files, options)

    def train_maps(self, name: str, lists: Mapping[str, Path]) -> None:
        """Train one map network for every fold, without the images of that fold; then go on with all, if asked to."""
        training = self.plan["trainings"][name]
        pairs = list_name("trainings", training)
        data = {"dataset_dir": str(self.lists.root(pairs)), "datalist": str(lists[pairs]), "seed": self.plan["seed"]}
        data |= {"side": training.get("side"), **training.get("options", {})}
        files = _configurations(["maps.yaml", *training.get("configs", [])])
        folds = fold_folders(self.plan, name, self.training_folder)
        for fold, folder in enumerate(folds):
            own = {"folds": training["folds"], "fold": fold, "output_dir": str(folder)}
            self.once(folder / "finished.json", "maps", files, data | own)
        if "all_patients" in training:
            for start, folder in zip(folds, final_folders(self.plan, name, self.training_folder), strict=True):
                own = {"start_weights": str(start / self.plan["weights_file"]), "output_dir": str(folder)}
                self.once(folder / "finished.json", "maps", files, data | training["all_patients"] | own)

    def evaluate(self, title: str, lists: Mapping[str, Path]) -> Evaluation:
        """Register the pairs of an evaluation with its methods, and for its curves."""
        entry = self.plan["evaluations"][title]
        pairs = list_name("evaluations", entry)
        runs = {name: self.register(name, title, lists[pairs]) for name in methods_of(self.plan, entry)}
        curves = entry.get("curves") or {"over": "steps"}
        starts: dict[str, dict[int, Path]] = {}
        for start, method, point, value in curve_points(entry):
            starts.setdefault(start, {})[point] = self.register(method, title, lists[pairs], value)
        return Evaluation(
            title,
            runs,
            reference_of(self.plan, entry),
            Curves(starts, curves["over"], curves.get("level")),
            [MEASURES[key] for key in entry.get("measures", self.plan["measures"])],
            self.lists.root(pairs),
        )

    def register(self, method_name: str, title: str, pairs: Path, point: Mapping[str, int] | None = None) -> Path:
        """Register pairs with one method; for a curve, with other ``steps`` or another ``epoch`` than its own.

        Returns:
            The folder of the run; runs that are the same under two names are done once.
        """
        from bundle.evaluation import SomePairsFailed

        evaluation, made = self.plan["evaluations"][title], run_of(self.plan, method_name, point)
        options = registration_options(self.plan, title, made)
        options |= map_options(self.plan, {"maps": made.maps}, self.training_folder)
        if made.source:
            options["weights"] = str(self.weights(made.source, made.epoch))
        elif options.setdefault("weights", None):
            options["weights"] = str(find_weights(options["weights"]))
        folder = self.results_folder(title, made)
        root = self.lists.root(list_name("evaluations", evaluation))
        options |= {"dataset_dir": str(root), "datalist": str(pairs), "section": "test", "output_dir": str(folder)}
        files = _configurations(registration_files(self.plan, made))
        try:
            self.once(folder / "finished.json", "run", files, options)
        except RuntimeError as error:
            if not isinstance(root_cause(error), SomePairsFailed):
                raise
            self.incomplete.append(f"{folder.relative_to(self.output_dir)}: {one_line(root_cause(error))}")
        return folder

    def training_folder(self, training: str) -> Path:
        """Where a training leaves its files."""
        return self.output_dir / "trainings" / slug(training)

    def results_folder(self, title: str, made: Run) -> Path:
        """Where a method leaves its results on the pairs of an evaluation."""
        return self.output_dir / "results" / slug(title) / made.name

    def weights(self, training: str, epoch: int | None = None) -> Path:
        """Weights that a training leaves at its end, or after one of its epochs.

        Raises:
            ValueError: when the weights of the epoch are missing.
        """
        if epoch is None:
            return self.training_folder(training) / self.plan["weights_file"]
        path = self.training_folder(training) / f"model_epoch_{epoch}.pt"
        if not path.is_file():
            raise ValueError(f"{path} is not there, the training passed epoch {epoch} without keeping it; train anew")
        return path

    def once(self, marker: Path, run_id: str, files: Sequence[str], options: Mapping[str, Any]) -> None:
        """Run a workflow unless its marker says that the same one has finished with the same files and images."""
        from monai.bundle import run

        weights = [file for key in ("weights", "start_weights") for file in of_weights(options.get(key))]
        read = (*files, options["datalist"], *weights, *map_files(options))
        inputs = [*(Path(file).read_bytes() for file in read), *programs(files, options)]
        made_of = system.fingerprint(run_id, dict(options), inputs, self.lists.made_of[options["datalist"]])
        if marker.is_file() and json.loads(marker.read_text()).get("made_of") == made_of and is_whole(marker.parent):
            return
        place = f"{number} of {len(self.workflows)}: " if (number := self.workflows.get(marker.parent)) else ""
        print(f"--- {place}{marker.parent.relative_to(self.output_dir)}", flush=True)
        # MONAI drops an option that is None; an expression for None gets through.
        given: dict[str, Any] = {key: "$None" if value is None else value for key, value in options.items()}
        run(run_id=run_id, config_file=list(files), **given, **console.quiet_unless(self.plan["verbose"]))
        with written_whole(marker) as file:
            json.dump({"made_of": made_of, "run_id": run_id, "files": list(files), "options": options}, file, indent=1)


def _configurations(names: Sequence[str]) -> list[str]:
    """Files of the configurations that a plan names."""
    return [str(path) for path in find_configurations(names)]
