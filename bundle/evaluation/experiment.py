"""The comparison of Baum et al. 2022, sections 3.3 to 4: train every network, run every method, write the report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, run

from bundle.data import SECTIONS, read_datalist, require, write_datalist, written_whole
from bundle.evaluation.experiment_report import Evaluation, write_report
from bundle.evaluation.experiment_results import slug

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
KEYS = {
    "trainings": {"network", "configs", "options", "start"},
    "methods": {"training", "network", "configs", "steps", "options"},
    "evaluations": {"pairing", "limit", "methods", "reference", "curves", "options"},
}


@dataclass
class Experiment:
    """One experiment on one data set; every training and every run of a method is kept and used again.

    Everything is a ``monai.bundle run`` of ``train.yaml`` or ``inference.yaml`` with overlays, so that a method is a
    few lines of the configuration: the training its weights come from, overlays, options and the number of steps.

    Args:
        config_files: ``configs/experiment.yaml``, and files that change it.
        dataset_dir: folder of images.
        output_dir: folder of the trainings, the results and the report.
        overrides: keys of the configuration with other values.

    Raises:
        ValueError: for a key, a training or a method that the configuration does not know.
    """

    config_files: Sequence[str]
    dataset_dir: Path
    output_dir: Path
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.plan: dict[str, Any] = ConfigParser.load_config_files(list(self.config_files))
        unknown = sorted(set(self.overrides) - set(self.plan))
        if unknown:
            raise ValueError(f"unknown option --{', --'.join(unknown)}; known options are {', '.join(self.plan)}")
        self.plan |= self.overrides
        for kind, known in KEYS.items():
            for name, entry in self.plan[kind].items():
                wrong = sorted(set(entry) - known)
                if wrong:
                    raise ValueError(
                        f"{kind}: {name!r} has {', '.join(wrong)}; expected some of {', '.join(sorted(known))}"
                    )
        for kind, key in (("methods", "training"), ("trainings", "start")):
            for name, entry in self.plan[kind].items():
                if entry.get(key) not in (None, *self.plan["trainings"]):
                    raise ValueError(f"{kind}: {name!r} names the training {entry[key]!r}, which is not there")
        evaluations = self.plan["evaluations"].values()
        named = {name for entry in evaluations for key in ("methods", "curves") for name in self._names(entry.get(key))}
        named |= {entry.get("reference", self.plan["reference"]) for entry in evaluations}
        missing = sorted(named - set(self.plan["methods"]))
        if missing:
            raise ValueError(f"no method {', '.join(map(repr, missing))}; expected {', '.join(self.plan['methods'])}")

    @staticmethod
    def _names(entry: Sequence[str] | Mapping[str, str] | None) -> list[str]:
        """Methods that an evaluation lists, or names as the starts of its curves."""
        return list(entry.values()) if isinstance(entry, Mapping) else list(entry or [])

    def run(self) -> Path:
        """Do what is not done yet.

        Returns:
            The report, ``report.html``.
        """
        lists = self.write_lists()
        for name in self.plan["trainings"]:
            self.train(name, lists["training"])
        evaluations = [
            self.evaluate(title, lists[title], evaluation)
            for title, evaluation in self.plan["evaluations"].items()
            if title in lists
        ]
        return write_report(
            Path(self.plan["report_dir"] or self.output_dir).absolute(),
            evaluations,
            title=self.plan["title"],
            notes=self.plan["notes"],
            dataset_dir=self.dataset_dir,
        )

    def write_lists(self) -> dict[str, Path]:
        """Write the pairs of the training and of every evaluation, split by patient alike.

        An evaluation of repeat scans is left out, and said so, where no test patient has any.
        """
        wanted = {"training": {"pairing": self.plan["pairing"]}, **self.plan["evaluations"]}
        lists = {}
        for name, entry in wanted.items():
            limits = self.plan["pair_limits"] if name == "training" else dict.fromkeys(SECTIONS, entry.get("limit"))
            kept = ("training", "validation") if name == "training" else ("test",)
            try:
                sections = read_datalist(
                    self.dataset_dir,
                    self.plan["datalist"],
                    pairing=entry.get("pairing", self.plan["pairing"]),
                    fractions=self.plan["split"],
                    limits=limits,
                    seed=self.plan["seed"],
                )
                require(sections, kept[0])
            except ValueError as error:
                if entry.get("pairing") != "repeat":
                    raise
                print(f"{name}: left out ({error})")
                continue
            lists[name] = self.output_dir / "pairs" / f"{slug(name)}.json"
            write_datalist(lists[name], {section: sections[section] for section in kept}, self.dataset_dir)
        return lists

    def train(self, name: str, pairs: Path) -> None:
        """Train one network, or go on where its run stopped."""
        training = self.plan["trainings"][name]
        folder = self.weights(name).parent
        options = {
            "dataset_dir": str(self.dataset_dir),
            "datalist": str(pairs),
            "output_dir": str(folder),
            "seed": self.plan["seed"],
            **self.plan["training_options"],
            **training.get("options", {}),
        }
        if training.get("start"):
            options["start_weights"] = str(self.weights(training["start"]))
        files = self.files("train.yaml", training, training)
        self.once(folder / "finished.json", "training", files, options)

    def evaluate(self, title: str, pairs: Path, evaluation: Mapping[str, Any]) -> Evaluation:
        """Register the pairs of an evaluation by its methods, and its curves over the number of steps."""
        runs = {name: self.register(name, title, pairs) for name in evaluation.get("methods") or self.plan["methods"]}
        curves = {
            name: {steps: self.register(method, title, pairs, steps) for steps in self.plan["curve_steps"]}
            for name, method in (evaluation.get("curves") or {}).items()
        }
        return Evaluation(title, runs, evaluation.get("reference", self.plan["reference"]), curves)

    def register(self, method_name: str, title: str, pairs: Path, steps: int | None = None) -> Path:
        """Register pairs by one method; ``steps`` other than the method's own belong to a curve.

        Returns:
            The folder of the run; runs that are the same thing under two names are done once.
        """
        method = self.plan["methods"][method_name]
        training = self.plan["trainings"].get(method.get("training"), {})
        steps = method.get("steps") if steps is None else steps
        options: dict[str, Any] = dict(self.plan["inference_options"])
        options |= self.plan["evaluations"][title].get("options", {}) | method.get("options", {})
        options["weights"] = str(self.weights(method["training"])) if method.get("training") else None
        if steps is not None:
            options["steps"] = steps
        overlays = [Path(file).stem for file in method.get("configs", [])]
        own = [f"{key}_{value}" for key, value in method.get("options", {}).items()]
        number = [] if steps is None else [f"{steps} steps"]
        name = slug(" ".join([method.get("training") or "random start", *overlays, *own, *number]))
        folder = self.output_dir / "results" / slug(title) / name
        options |= {"dataset_dir": str(self.dataset_dir), "datalist": str(pairs), "output_dir": str(folder)}
        self.once(folder / "finished.json", "run", self.files("inference.yaml", training, method), options)
        return folder

    def weights(self, training: str) -> Path:
        """Where a training leaves its weights."""
        return self.output_dir / "trainings" / slug(training) / self.plan["weights_file"]

    def files(self, base: str, training: Mapping[str, Any], entry: Mapping[str, Any]) -> list[str]:
        """Configuration files of a run: the base, what all runs share, the network, then the entry's own."""
        network = entry.get("network", training.get("network", []))
        return [str(CONFIGS / name) for name in [base, *self.plan["configs"], *network, *entry.get("configs", [])]]

    def once(self, marker: Path, run_id: str, files: Sequence[str], options: Mapping[str, Any]) -> None:
        """Run a workflow unless its marker says that the same one was finished, with the same weights."""
        weights = options.get("weights")
        signature = {
            "run_id": run_id,
            "files": [Path(file).name for file in files],
            "options": dict(options),
            "weights": hashlib.sha256(Path(weights).read_bytes()).hexdigest() if weights else None,
            "pairs": hashlib.sha256(Path(options["datalist"]).read_bytes()).hexdigest(),
        }
        if marker.is_file() and json.loads(marker.read_text()) == json.loads(json.dumps(signature)):
            return
        print(f"--- {marker.parent.relative_to(self.output_dir)}", flush=True)
        # MONAI drops an option that is None; the expression for it arrives.
        given = {key: "$None" if value is None else value for key, value in options.items()}
        run(run_id=run_id, config_file=list(files), **given)
        with written_whole(marker) as file:
            json.dump(signature, file, indent=1)
