"""Plans: what is refused, the epochs that trainings keep, and lists of several folders."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from workflow_fixtures import ROOT, write_json

from bundle.data import read_datalist
from bundle.evaluation import SomePairsFailed
from bundle.evaluation.table import write_table
from bundle.experiment import Experiment
from bundle.experiment.plan import curve_points, kept_epochs, read_plan, run_of
from bundle.experiment.runs import (
    find_weights,
    is_whole,
    of_weights,
    registration_files,
    registration_options,
    slug,
    training_files,
)
from bundle.results.resume import images_known_by, write_record
from bundle.system.configurations import find_configurations, load_configurations

CONFIGS = ROOT / "configs"
PLAN = [str(CONFIGS / "experiments/experiment_2d.yaml")]
POINTS = [0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 100]
SMALLER = [*PLAN, str(CONFIGS / "experiments/experiment_2d_cpu.yaml")]


def changed(path, **keys):
    """The plan of planar images with nested keys of other values: ``trainings__ours__options``."""
    return [*SMALLER, str(write_json(path / "change.json", {k.replace("__", "::"): v for k, v in keys.items()}))]


BAUM = [str(CONFIGS / "experiments/experiment.yaml")]


HIPPOCAMPUS = [*BAUM, str(CONFIGS / "experiments/experiment_hippocampus.yaml")]
TRUS = [*BAUM, str(CONFIGS / "experiments/experiment_trus.yaml")]
TRUS_LABELS = [*BAUM, str(CONFIGS / "experiments/experiment_trus_labels.yaml")]
MR_TRUS = [*BAUM, str(CONFIGS / "experiments/experiment_mr_trus.yaml")]
PEERS = [*BAUM, str(CONFIGS / "experiments/peers.yaml")]
PEERS_HIPPOCAMPUS = [*PEERS, str(CONFIGS / "experiments/peers_hippocampus.yaml")]


ALL_PLANS = [PLAN, SMALLER, BAUM, HIPPOCAMPUS, TRUS, TRUS_LABELS, MR_TRUS, PEERS, PEERS_HIPPOCAMPUS]


def test_weights_for_mr_are_measured_with_the_steps_of_their_overlay():
    """They had those of ultrasound: fifteen times as large, led by the gland, with the apex held."""
    plan = read_plan([*BAUM, *(str(CONFIGS / f"experiments/weights{name}.yaml") for name in ("", "_mr_trus"))], {})
    made = run_of(plan, "Meta-learned start, 5 steps")
    given = load_configurations(registration_files(plan, made)) | registration_options(plan, "MR to ultrasound", made)
    training = load_configurations(training_files(plan, plan["trainings"]["meta"])) | plan["training_options"]
    overlay = load_configurations("mr_trus.yaml")
    for key in ("inner_lr", "leading_maps", "held_maps", "search_mm"):
        assert given[key] == overlay[key], key
    assert training["inner_lr"] == overlay["inner_lr"]


@pytest.mark.parametrize("files", ALL_PLANS, ids=str)
def test_the_plans_hold_together(files):
    plan = read_plan(files, {})
    overlays = [*plan["configs"], *(name for kind in ("trainings", "methods") for name in files_of(plan[kind]))]
    assert len(find_configurations(overlays)) == len(set(overlays)) > 0


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (
            [str(CONFIGS / "train.yaml")],
            {},
            "train.yaml: no lists; expected the plan of an experiment, such as configs/",
        ),
        (BAUM, {"methods": "nope"}, "--methods is 'nope'; expected one of its parts, such as --methods::"),
        (BAUM, {"seed": "x"}, "--seed is 'x'; expected a whole number, such as"),
        (BAUM, {"pair_limits::test": "x"}, "--pair_limits::test is 'x'; expected a whole number, such as 16"),
        (BAUM, {"lists::tset::pairing": "paired"}, "lists::tset::pairing changes a part of lists::tset, which is not"),
        (BAUM, {"training_options::iterationz": 1}, "trainings: 'meta': unknown option iterationz; did you mean"),
        (BAUM, {"sead": 1}, "unknown option --sead; did you mean --seed"),
        (BAUM, {"evaluations": {2024: {}}}, "evaluations: the name 2024 is no text; put it in quotes"),
        (BAUM, {"lists": {"test": {}, True: {}}}, "lists: the name True is no text; put it in quotes"),
        (BAUM, {"evaluations": {"***": {}}}, r"evaluations: '\*\*\*' names a folder; give it a letter or a digit"),
        (BAUM, {"evaluations": {"E": ["LocalNet"]}}, r"evaluations: 'E' is \['LocalNet'\]; expected some of curves"),
        (BAUM, {"evaluations": {"E": {"measures": "dsc"}}}, "'E': measures is 'dsc'; expected a list of texts"),
        (BAUM, {"lists::test::folders": "dataset_dir"}, "'test': folders is 'dataset_dir'; expected a list of texts"),
        (BAUM, {"methods::LocalNet::configs": "cpu.yaml"}, "'LocalNet': configs is 'cpu.yaml'; expected a list of"),
        (
            BAUM,
            {"methods": {"LocalNet": {"steps": 1.5}}},
            "'LocalNet': steps is 1.5; expected a whole number, 0 or more",
        ),
        (BAUM, {"methods::LocalNet::options": [1]}, r"'LocalNet': options is \[1\]; expected keys, which are texts"),
        (BAUM, {"evaluations": {"E": {"curves": {"points": 5}}}}, "the curves of 'E': points is 5; expected a list of"),
        (BAUM, {"evaluations::Steps::curves::points": [0, 1.5]}, r"points is \[0, 1.5\]; expected a list of whole"),
        (
            BAUM,
            {"evaluations": {"E": {"curves": {"starts": ["LocalNet"]}}}},
            r"starts is \['LocalNet'\]; expected keys",
        ),
    ],
)
def test_what_is_no_plan_is_refused(files, options, message):
    with pytest.raises(ValueError, match=message):
        read_plan(files, options)


def test_entries_and_keys_with_nothing_are_as_those_that_are_not_there():
    """``test:`` alone on its line is null in YAML, and ended in an error of Python."""
    keys = {"lists::test": None, "lists::steps::pairing": None, "notes": None, "evaluations::Between patients": None}
    plan = read_plan(BAUM, {**keys, "evaluations::Steps::curves": None})
    assert plan["lists"] | {"test": {}} == plan["lists"]
    assert "pairing" not in plan["lists"]["steps"]
    assert plan["evaluations"]["Between patients"] == {}
    assert "curves" not in plan["evaluations"]["Steps"]
    assert list(plan["notes"]) == []
    own = read_plan(BAUM, {"lists::test::datalist": None})
    assert own["lists"]["test"] == {"datalist": None}  # which the list has in place of the datalist of all


def files_of(entries):
    return [name for entry in entries.values() for name in (*entry.get("network", []), *entry.get("configs", []))]


def test_options_change_parts_of_a_plan():
    before = read_plan(BAUM, {})
    plan = read_plan(BAUM, {"pair_limits::test": 5, "trainings::anatomy bilevel::options::iterations": 7})
    assert plan["pair_limits"] == {**before["pair_limits"], "test": 5}
    assert plan["trainings"]["anatomy bilevel"]["options"]["iterations"] == 7


def test_parts_that_share_an_anchor_are_changed_one_by_one(tmp_path):
    change = {
        "trainings::anatomy bilevel::options::iterations": 7,
        "+evaluations::Repeat scans::methods": ["Maps, 0 steps"],
    }
    before, plan = read_plan(BAUM, {}), read_plan([*BAUM, str(write_json(tmp_path / "change.json", change))], {})
    assert plan["trainings"]["anatomy bilevel"]["options"]["iterations"] == 7
    assert plan["evaluations"]["Repeat scans"]["methods"][-1] == "Maps, 0 steps"
    assert plan["trainings"]["anatomy step sizes"] == before["trainings"]["anatomy step sizes"]
    assert plan["evaluations"]["Between patients"] == before["evaluations"]["Between patients"]


def test_numbers_of_the_paper():
    plan = read_plan(PLAN, {})
    epochs = {
        name: entry["options"]["iterations"] / entry["options"]["iterations_per_epoch"]
        for name, entry in plan["trainings"].items()
    }
    assert epochs.pop("meta") * 100 == 23000
    mini = {"fine-tune in mini-batches": 2000, "ours in mini-batches": 2000}
    assert epochs == {"pretrain": 6000, "fine-tune": 2000, "ours": 2000, "seen": 25000, "unseen": 38000, **mini}
    assert list(plan["methods"])[:3] == ["Model-Seen", "Model-Unseen", "Transfer"]


def test_trainings_keep_the_epochs_that_methods_and_curves_take():
    plan = read_plan(SMALLER, {})
    assert kept_epochs(plan, "ours") == kept_epochs(plan, "fine-tune") == POINTS
    assert kept_epochs(plan, "seen") == []
    plan["evaluations"]["Target task"]["curves"]["over"] = "steps"
    assert kept_epochs(plan, "ours") == [10]
    assert kept_epochs(plan, "fine-tune") == [10]


def test_options_of_a_method_that_only_a_curve_has_are_checked(tmp_path):
    method = {"training": "meta", "steps": 5, "options": {"inner_lrr": 1}}
    change = {"methods::Drawn": method, "evaluations::Steps::curves::starts::drawn": "Drawn"}
    with pytest.raises(ValueError, match=r"'Drawn' in 'Steps': unknown option inner_lrr; did you mean inner_lr\?"):
        read_plan([*BAUM, str(write_json(tmp_path / "change.json", change))], {})


def test_points_of_a_curve_are_a_number_of_the_method():
    curves = {"points": [0, 3], "starts": {"A": "a", "B": "b"}}
    epochs = list(curve_points({"curves": {**curves, "over": "epochs"}}))
    assert epochs[:2] == [("A", "a", 0, {"epoch": 0}), ("A", "a", 3, {"epoch": 3})]
    assert list(curve_points({"curves": {**curves, "over": "steps"}}))[3] == ("B", "b", 3, {"steps": 3})
    assert list(curve_points({})) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trainings__ours__list": "fine"}, "trainings: 'ours' names the list 'fine', which is not there; expected so"),
        (
            {"trainings__pretrain__start": "ours"},
            "'pretrain' starts from 'ours', which comes later; list it before 'pre",
        ),
        ({"evaluations__Target task__list": "tets"}, "evaluations: 'Target task' names the list 'tets'"),
        ({"lists__test__folders": ["target/test"]}, "'target/test'; expected dataset_dir or target_dir, or a folder"),
        ({"evaluations__Target task__curves__level": "Us"}, "no method 'Us'; expected Model-Seen"),
        (
            {"evaluations__Target task__methods": ["Transfer"]},
            "'Target task' is compared with its reference 'Ours.*', which is not among its methods; expected one of",
        ),
        (
            {"evaluations__Target task__methods": ["Ours - 10 epochs"], "reference": "Ours - 10 epochs"}
            | {"evaluations__Target task__curves__level": "Transfer"},
            "'Target task' is compared with the level of its curves 'Transfer', which is not among its methods; exp",
        ),
        ({"methods__not registered": {}}, "'not registered' is the row of the pairs before registration; name it o"),
        ({"evaluations__Target task__curves__over": "days"}, r"expected over \(steps or epochs\), points"),
        ({"evaluations__Target task__curves__points": []}, "the curves of 'Target task' are .*expected over"),
        (
            {"evaluations__Target task__curves__start": "Ours"},
            "curves of 'Target task' has start; expected some of",
        ),
        ({"measures": ["distance"]}, "'Target task' has the measure 'distance'; expected some of .*distance_px"),
        ({"methods__Transfer__epoch": 500}, "methods: 'Transfer' asks for epoch 500 of 'pretrain', which has 40"),
        ({"methods__Model-Seen__epoch": 0}, "'Model-Seen' asks for epoch 0 of 'seen', which has no start"),
        (
            {"methods__Transfer": {"epoch": 3}},
            "'Transfer' asks for epoch 3, but its method has no training; give it one",
        ),
        (
            {"trainings__ours__options": {"iterations": 401, "iterations_per_epoch": 10}},
            "the curve 'Ours' of 'Target task' asks for epoch 50 of 'ours', which has 41; expected 0 to 41",
        ),
        (
            # Its overlay conventional.yaml has 500 iterations in an epoch.
            {"trainings__ours__options": {"iterations": 2001}},
            "methods: 'Ours - 10 epochs' asks for epoch 10 of 'ours', which has 5; expected 0 to 5",
        ),
        (
            {"trainings__Ours!": {"list": "finetune"}},
            "trainings: 'ours' and 'Ours!' would be one folder, ours; rename one of them",
        ),
        (
            {"evaluations__target_task": {}},
            "evaluations: 'Target task' and 'target_task' would be one folder, target_task; rename one of them",
        ),
        (
            {
                "methods__A": {"options": {"rotation": 0.5}},
                "methods__B": {"options": {"rotation": -0.5}},
                "evaluations__signs": {"methods": ["A", "B"], "reference": "A"},
            },
            "methods: 'A' and 'B' differ, but their results in 'signs' would be one folder, "
            r"random_start_rotation_0_5; give one of them an overlay \(configs\) of its own",
        ),
        (
            {
                "methods__Again": {"training": "pretrain", "network": [], "configs": ["a/b.yaml"], "steps": 0},
                "methods__Too": {"training": "pretrain", "configs": ["b.yaml"], "steps": 0},
                "evaluations__files": {"methods": ["Again", "Too"], "reference": "Too"},
            },
            "methods: 'Again' and 'Too' differ, .* would be one folder, pretrain_b_0_steps",
        ),
    ],
)
def test_a_wrong_plan_of_planar_images_is_refused(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_plan(changed(tmp_path, **change), {})


def test_a_list_of_a_folder_that_is_not_given_is_refused(tmp_path):
    message = "lists: 'finetune' is read from target_dir/finetune, but there is no target_dir; add --target_dir FOLDER"
    with pytest.raises(ValueError, match=message):
        Experiment(PLAN, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def folders(tmp_path):
    """A source and a target task; the target's folders call their pairs alike."""
    pixels = np.zeros((4, 4), dtype=np.uint8)
    for folder, count in (("source", 5), ("target/finetune", 4), ("target/test", 3)):
        for side in ("fixed", "moving"):
            images = tmp_path / folder / f"{side}_images"
            images.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(pixels).save(images / f"{number:03d}.png")
    return tmp_path


@pytest.fixture
def experiment(folders):
    plan = changed(folders, split=[0.8, 0.2, 0.0])
    return Experiment(plan, folders / "source", folders / "out", {"target_dir": str(folders / "target")})


@pytest.mark.parametrize("change", [{"split": [0.8, 0.2, 0.0]}, {"pairing": "repeat"}], ids=str)
def test_a_list_that_lacks_what_one_of_its_users_reads_is_refused_before_all_others(folders, change):
    """Its evaluation was refused after the training; a training of repeat scans that no patient has was a KeyError."""
    lists = {"first": {"folders": ["target_dir/finetune"]}, "both": {"folders": ["target_dir/test"], **change}}
    trainings = {"ours": {"list": "both"}, "other": {"list": "first"}}
    methods = {"Ours": {"training": "ours"}}
    evaluations = {"Target task": {"list": "both"}}
    plan = changed(
        folders, lists=lists, trainings=trainings, methods=methods, evaluations=evaluations, reference="Ours"
    )
    planned = Experiment(plan, folders / "source", folders / "out", {"target_dir": str(folders / "target")})
    with pytest.raises(ValueError, match="lists: 'both': no (test|patient)"):
        planned.lists.write()
    assert not (folders / "out").exists()


def test_results_of_other_images_are_refused_before_the_first_run(experiment, folders):
    """Pairs had another name in the runs that were there before, so a new method had other pairs than the reference."""
    experiment.lists.write()
    (pair, *_) = experiment.lists.read("test")["test"]
    others = {"fixed_image": str(folders / "source/fixed_images/001.png"), "moving_image": str(folders / "other.png")}
    Image.fromarray(np.full((4, 4), 7, dtype=np.uint8)).save(others["moving_image"])
    result = folders / "out/results/target_task/seen" / pair["pair_id"]
    result.mkdir(parents=True)
    write_record(result, images_known_by(pair))
    experiment.lists.write()
    write_record(result, images_known_by(others))
    with pytest.raises(ValueError, match="target_task/seen holds results of other images of these names; choose anoth"):
        experiment.lists.write()


def test_a_run_that_has_lost_results_is_not_finished(tmp_path):
    """The report was about the pairs that were left, in silence where every method had lost the same."""
    assert is_whole(tmp_path)  # of a training, which has no table
    rows = [{"pair_id": name, "status": status} for name, status in (("a", "done"), ("b", "failed"))]
    write_table(rows, ["pair_id", "status"], tmp_path / "metrics.csv")
    assert not is_whole(tmp_path)
    (tmp_path / "a").mkdir()
    write_json(tmp_path / "a/metrics.json", {})
    assert is_whole(tmp_path)


def test_lists_are_of_the_folders_of_source_and_target(experiment, folders):
    lists = experiment.lists.write()
    assert list(lists) == ["source", "finetune", "seen", "test"]
    found = {name: json.loads(path.read_text()) for name, path in lists.items()}
    counts = {name: {section: len(pairs) for section, pairs in content.items()} for name, content in found.items()}
    assert counts == {
        "source": {"training": 4, "validation": 1},
        "finetune": {"training": 3, "validation": 1},
        "seen": {"training": 5, "validation": 2},
        "test": {"test": 3},
    }
    assert found["test"]["test"][0]["fixed_image"] == "fixed_images/000.png"
    assert experiment.lists.root("test") == folders / "target/test"


def test_pairs_of_several_folders_are_told_apart_and_read_back(experiment, folders):
    path = experiment.lists.write()["seen"]
    sections = read_datalist(experiment.lists.root("seen"), path)
    pairs = [pair for section in sections.values() for pair in section]
    assert {Path(pair["fixed_image"]).relative_to(folders / "target").parts[0] for pair in pairs} == {
        "finetune",
        "test",
    }
    names = {pair["pair_id"] for pair in pairs}
    assert len(names) == 7
    assert {"finetune_000_to_000", "test_000_to_000"} <= names


def test_pairs_of_folders_of_one_name_are_told_apart(folders):
    lists = {
        "lists__test__folders": ["target_dir/test", "dataset_dir/test"],
        "lists__source": {"folders": ["target_dir"]},
    }
    shutil.copytree(folders / "target/test", folders / "source/test")
    shutil.rmtree(folders / "target/finetune")
    plan = changed(folders, **lists, lists__test__split=[0.0, 0.0, 1.0])
    found = Experiment(plan, folders / "source", folders / "out", {"target_dir": str(folders / "target")})
    pairs = found.lists.read("test")["test"]
    assert [pair["pair_id"] for pair in pairs[2:4]] == ["target_test_002_to_002", "source_test_000_to_000"]
    assert len({pair["pair_id"] for pair in pairs}) == len({pair["patient"] for pair in pairs}) == 6


def test_a_training_that_has_test_patients_is_told(experiment, folders, capsys):
    # The plan's Model-Seen learns from test pairs, as in the paper; one of the three is for its validation.
    experiment.lists.write()
    told = ["Target task: the training 'seen' has 2 of the 3 test patients."]
    assert experiment.lists.learned_from() == capsys.readouterr().out.splitlines() == told
    plan = changed(folders, split=[0.8, 0.2, 0.0], lists__finetune={"folders": ["target_dir/test"]})
    other = Experiment(plan, folders / "source", folders / "out", {"target_dir": str(folders / "target")})
    other.lists.write()
    # What starts from a training has learned from its patients too.
    assert "Target task: the training 'fine-tune' has 2 of the 3 test patients." in other.lists.learned_from()


@pytest.fixture
def calls(experiment, monkeypatch):
    """Marker's folder, files and options of every run, which leaves the epochs it was asked to keep."""
    found = []

    def once(marker, run_id, files, options):
        found.append((str(marker.parent.relative_to(experiment.output_dir)), [Path(f).name for f in files], options))
        marker.parent.mkdir(parents=True, exist_ok=True)
        for epoch in options.get("kept_epochs", []):
            (marker.parent / f"model_epoch_{epoch}.pt").write_bytes(b"")

    monkeypatch.setattr(experiment, "once", once)
    return found


def test_trainings_follow_each_other(experiment, calls, folders):
    lists = experiment.lists.write()
    for name in experiment.plan["trainings"]:
        experiment.train(name, lists)
    options = {folder.removeprefix("trainings/"): given for folder, _, given in calls}
    files = {folder.removeprefix("trainings/"): names for folder, names, _ in calls}
    assert (
        files["pretrain"]
        == files["unseen"]
        == ["train.yaml", "2d.yaml", "voxelmorph.yaml", "cpu_2d.yaml", "conventional.yaml"]
    )
    assert files["meta"] == ["train.yaml", "2d.yaml", "voxelmorph.yaml", "cpu_2d.yaml"]
    out = folders / "out/trainings"
    starts = {name: given.get("start_weights") for name, given in options.items()}
    assert starts == {
        "pretrain": None,
        "meta": str(out / "pretrain/model_last.pt"),
        "fine_tune": str(out / "pretrain/model_last.pt"),
        "ours": str(out / "meta/model_last.pt"),
        "fine_tune_in_mini_batches": str(out / "pretrain/model_last.pt"),
        "ours_in_mini_batches": str(out / "meta/model_last.pt"),
        "seen": None,
        "unseen": None,
    }
    assert options["ours"]["kept_epochs"] == POINTS[1:]
    assert "kept_epochs" not in options["seen"]
    assert options["ours"]["dataset_dir"] == str(folders / "target/finetune")
    assert options["seen"]["dataset_dir"] == str(folders / "target")
    assert options["meta"]["datalist"] == str(lists["source"])


def test_curves_over_epochs_begin_with_the_weights_of_the_start(experiment, calls, folders):
    lists = experiment.lists.write()
    for name in experiment.plan["trainings"]:
        experiment.train(name, lists)
    calls.clear()
    evaluation = experiment.evaluate("Target task", lists)
    out = folders / "out/trainings"
    weights = {folder.removeprefix("results/target_task/"): given["weights"] for folder, _, given in calls}
    assert weights["ours_10_epoch_0_steps"] == str(out / "ours/model_epoch_10.pt")
    assert weights["ours_0_steps"] == weights["ours_5_steps"] == str(out / "ours/model_last.pt")
    assert weights["meta_0_steps"] == str(out / "meta/model_last.pt")
    # Epoch 0 of fine-tuning is Transfer, one run under two names.
    curves = evaluation.curves
    assert curves.starts["Fine-tune"][0] == evaluation.runs["Transfer"]
    assert curves.starts["Ours"][10] == evaluation.runs["Ours - 10 epochs"]
    assert (curves.over, curves.level, list(curves.starts["Ours"])) == ("epochs", "Ours - 10 epochs", POINTS)
    assert [measure.key for measure in evaluation.measures] == ["distance_px", "ncc", "inverse_distance_px"]
    assert evaluation.dataset_dir == folders / "target/test"
    assert {given["section"] for _, _, given in calls} == {"test"}


def test_methods_that_differ_in_their_network_have_folders_of_their_own(tmp_path):
    networks = {name: {"network": [f"{name}.yaml"], "steps": 5} for name in ("localnet", "voxelmorph")}
    plan = read_plan(changed(tmp_path, methods__A=networks["localnet"], methods__B=networks["voxelmorph"]), {})
    assert run_of(plan, "A").name == "random_start_localnet_5_steps"
    assert run_of(plan, "B").name == "random_start_voxelmorph_5_steps"
    assert run_of(plan, "B").configs == ["voxelmorph.yaml"]


@pytest.mark.parametrize("key", ["weights", "start_weights"])
def test_a_run_is_done_again_when_the_weights_that_it_starts_from_change(key, experiment, folders, monkeypatch):
    runs, start = [], folders / "start.pt"
    monkeypatch.setattr("monai.bundle.run", lambda **given: runs.append(given[key]))
    options = {"datalist": str(experiment.lists.write()["test"]), key: str(start)}
    for name, content in (("", b"1"), ("", b"1"), ("", b"2"), ("_step_sizes", b"3"), ("_step_sizes", b"3")):
        start.with_name(f"start{name}.pt").write_bytes(content)
        experiment.once(folders / "out/finished.json", "training", [], options)
    assert runs == [str(start)] * 3


def test_a_run_is_done_again_when_an_image_of_its_list_changes(experiment, folders, monkeypatch):
    runs = []
    monkeypatch.setattr("monai.bundle.run", lambda **given: runs.append(given["datalist"]))
    image = {name: folders / f"target/{name}/moving_images/000.png" for name in ("test", "finetune")}

    def again():
        lists = experiment.lists.write()
        for name in image:
            experiment.once(folders / f"out/{name}/finished.json", "run", [], {"datalist": str(lists[name])})
        found = [Path(path).stem for path in runs]
        runs.clear()
        return found

    assert again() == ["test", "finetune"]
    os.utime(image["test"], ns=(0, 0))  # as a copy of the data set may have
    assert again() == []
    for name, path in image.items():
        Image.fromarray(np.eye(4, dtype=np.uint8)).save(path)
        assert again() == [name]


@pytest.mark.parametrize(
    ("kind", "registered", "message"),
    [
        (
            SomePairsFailed,
            ["pretrain_0_steps", "meta_0_steps"],
            r"2 of 10 runs lack pairs, which .*report.html names; the same command tries them again "
            r"\(results/target_task/pretrain_0_steps: 1 of 3 pairs failed \(b: why\)\)",
        ),
        (RuntimeError, ["pretrain_0_steps"], "Failed to evaluate"),
    ],
)
def test_an_experiment_goes_on_behind_a_pair_that_fails_but_not_behind_a_run_without_pairs(
    kind, registered, message, experiment, calls, monkeypatch
):
    def fail(marker, *_):
        found.append(marker.parent.name)
        raise RuntimeError("Failed to evaluate '$@table.conclude()'") from kind("1 of 3 pairs failed (b: why)")

    found, written = [], []
    monkeypatch.setattr(experiment, "once", fail)
    monkeypatch.setattr(
        "bundle.experiment.report.write_report", lambda folder, *_, **__: written.append(1) or folder / "report.html"
    )
    monkeypatch.setattr(experiment, "train", lambda *_: None)
    experiment.plan["evaluations"] = {"Target task": {"methods": ["Transfer", "Meta-learned start"]}}
    monkeypatch.setattr(experiment, "weights", lambda training, epoch: Path(training))
    with pytest.raises(RuntimeError, match=message):
        experiment.run()
    assert found == registered
    assert len(written) == len(registered) - 1  # the report of what there is


def test_start_weights_of_a_training_are_found_as_those_of_a_method(experiment, calls, folders, monkeypatch):
    monkeypatch.chdir(folders)
    experiment.plan["trainings"]["meta"] |= {"start": None, "options": {"start_weights": "models/model.pt"}}
    experiment.train("meta", experiment.lists.write())
    assert calls[0][2]["start_weights"] == str(ROOT / "models/model.pt")


def test_an_epoch_that_a_training_did_not_keep_is_named(experiment, folders):
    with pytest.raises(ValueError, match=r"model_epoch_7.pt is not there, the training passed epoch 7 without keeping"):
        experiment.weights("ours", 7)


def test_the_smaller_plan_changes_keys_of_the_plan_only():
    small = yaml.safe_load(Path(SMALLER[-1]).read_text())
    for key in small:
        entry = yaml.safe_load(Path(PLAN[0]).read_text())
        for name in key.split("::"):
            assert name in entry, key
            entry = entry[name]


def test_a_long_name_of_a_run_is_its_beginning_and_a_fingerprint():
    first, second = (slug(f"command my_tool {'option ' * 40}{number}") for number in (1, 2))
    assert len(first) == len(second) < 120
    assert first != second
    assert first.startswith("command_my_tool_option_")
    assert slug("ANTs SyN, 0 steps") == "ants_syn_0_steps"


def test_names_in_any_script_are_names_of_folders():
    """Those without a Latin letter had no name, which ended the experiment after its last run."""
    assert slug("Größe – 5 Schritte") == "größe_5_schritte"
    assert (slug("患者之间"), slug("重复扫描")) == ("患者之间", "重复扫描")
    assert slug("cafe\u0301") == slug("caf\u00e9")
    assert slug("***") == ""
    longest = slug("患" * 99)
    assert len(longest.encode()) < 120
    assert longest.startswith("患患")


def test_weights_of_a_method_are_a_file_or_a_name_in_this_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_weights("models/model.pt") == ROOT / "models/model.pt"
    own = tmp_path / "models/model.pt"
    own.parent.mkdir()
    own.touch()
    assert find_weights("models/model.pt").resolve() == own
    with pytest.raises(ValueError, match="weights not found: models/other.pt; give a file"):
        find_weights("models/other.pt")


def test_maps_and_step_sizes_belong_to_weights(tmp_path):
    for name in ("model.pt", "model_maps_0.pt", "model_step_sizes.pt", "other.pt"):
        (tmp_path / name).touch()
    assert [path.name for path in of_weights(str(tmp_path / "model.pt"))] == [
        "model.pt", "model_maps_0.pt", "model_step_sizes.pt",
    ]  # fmt: skip
    assert of_weights(None) == []
