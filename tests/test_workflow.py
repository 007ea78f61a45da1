"""The commands of the README from start to end, as processes of their own on tiny data."""

import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from importlib.util import find_spec

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
from toys import by_pair
from workflow_fixtures import (
    INFERENCE,
    ROOT,
    SHAPE,
    SMALL_TRAINING,
    TRAIN,
    Command,
    options,
    pair,
    wait_for,
    write_dicom_series,
    write_json,
    write_volume,
)

pytest_plugins = ["workflow_fixtures"]

PROSTATE = ROOT.parent / "shared/data/prostate_mr_trus"


def weights(path):
    return torch.load(path, weights_only=True)


def assert_same_weights(first, second):
    first, second = weights(first), weights(second)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def displacement(folder, pair_id):
    return np.asarray(nib.load(folder / pair_id / "displacement.nii.gz").dataobj)


def names(folder):
    return {path.name for path in folder.iterdir()}


def contents(folder):
    """Files with what is in them, but for the lock, which the end of a forked process leaves."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "run.lock"]
    return {path.relative_to(folder): path.read_bytes() for path in files}


# --- training -----------------------------------------------------------------------------------------------------


def test_run_killed_in_the_middle_continues_to_the_same_weights(tiny_dataset, command, tmp_path):
    settings = {"dataset_dir": tiny_dataset, "datalist": "datalist.json", "iterations": 12}
    assert command.train(tmp_path / "whole", **settings).code == 0
    values = options({"output_dir": tmp_path / "killed", **SMALL_TRAINING, **settings})
    held = ("bundle.meta.handlers.ResumableCheckpoint._write", signal.SIGKILL)
    process = command.start("monai.bundle", "run", "training", "--config_file", TRAIN, *values, held=held)
    wait_for((tmp_path / "killed/checkpoint.pt").exists, process)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    iteration = torch.load(tmp_path / "killed/checkpoint.pt", weights_only=True)["iteration"]
    assert 0 < iteration < 12

    resumed = command.train(tmp_path / "killed", **settings)
    assert resumed.code == 0, resumed.error
    assert f"after {iteration} iterations" in resumed.out
    for name in ("model.pt", "model_last.pt"):
        assert_same_weights(tmp_path / "whole" / name, tmp_path / "killed" / name)


def test_training_leaves_weights_curves_and_the_datalist(trained):
    assert {"checkpoint.pt", "model.pt", "model_last.pt", "datalist.json", "tensorboard"} <= names(trained)
    events = b"".join(path.read_bytes() for path in (trained / "tensorboard").iterdir())
    for name in (b"train_loss", b"val_loss", b"val_dsc"):
        assert name in events
    assert not list(trained.rglob(".*"))


def test_training_without_tensorboard_leaves_no_curves(tiny_dataset, tmp_path):
    """As docs/install.md has it of the package alone; it ended in an error of MONAI."""
    program = "import sys; sys.modules['tensorboard'] = None; from bundle.__main__ import main; main()"
    values = {"output": tmp_path / "run", "datalist": "datalist.json", **SMALL_TRAINING}
    words = [sys.executable, "-c", program, "train", tiny_dataset, *options(values)]
    finished = subprocess.run(list(map(str, words)), cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert "model.pt" in names(tmp_path / "run") and "tensorboard" not in names(tmp_path / "run")


def test_training_moves_the_weights(trained, command, tiny_dataset, tmp_path):
    assert any(tensor.abs().max() > 0 for name, tensor in weights(trained / "model.pt").items() if "out" in name)
    checkpoint = torch.load(trained / "checkpoint.pt", weights_only=True)
    assert (checkpoint["epoch"], checkpoint["iteration"]) == (2, 4)
    assert np.isfinite(checkpoint["best_metric"])


def test_written_datalist_repeats_the_pairs(trained, tiny_dataset, command, tmp_path):
    written = json.loads((trained / "datalist.json").read_text())
    assert {section: len(pairs) for section, pairs in written.items()} == {"training": 6, "validation": 1, "test": 1}
    repeated = command.train(tmp_path / "run", dataset_dir=tiny_dataset, datalist=trained / "datalist.json")
    assert repeated.code == 0, repeated.error
    assert json.loads((tmp_path / "run/datalist.json").read_text()) == written
    assert_same_weights(trained / "model_last.pt", tmp_path / "run/model_last.pt")


def test_other_settings_do_not_continue_a_run_and_leave_it_as_it_is(trained, tiny_dataset, command, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    for name in ("model_maps_0.pt", "model_last_maps_0.pt"):  # of a run with maps, which this one has not
        (run / name).write_bytes(b"a map network")
    before = contents(run)
    shorter = json.loads((tiny_dataset / "datalist.json").read_text()) | {"test": []}
    datalist = write_json(tmp_path / "shorter.json", shorter)
    finished = command.train(run, dataset_dir=tiny_dataset, datalist=datalist, pixdim=6)
    assert finished.code == 1
    assert "other settings (pixdim was 5, is 6" in finished.error
    assert contents(run) == before


def test_meta_batches_first_order_maml_and_adam_train(tiny_dataset, command, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(
        "optimizer: {_target_: torch.optim.Adam, params: $@registration_network.parameters(), lr: '@meta_lr'}\n"
        "meta_rule: $bundle.meta.first_order_maml\n"
    )
    finished = command.train(
        tmp_path / "run",
        config=f"['{TRAIN}','{overlay}']",
        dataset_dir=tiny_dataset,
        datalist="datalist.json",
        episodes_per_iteration=2,
        meta_lr=0.001,
        iterations=2,
    )
    assert finished.code == 0, finished.error


def test_label_overlay_trains_with_labels_and_names_missing_ones(tiny_dataset, command, tmp_path):
    config = f"['{TRAIN}','{ROOT / 'configs/overlays/labels.yaml'}']"
    settings = {"config": config, "dataset_dir": tiny_dataset, "iterations": 2, "structures": [1]}
    finished = command.train(tmp_path / "labelled", datalist="datalist.json", **settings)
    assert finished.code == 0, finished.error
    images = [{"image": f"images/{name}.nii.gz"} for name in "ABC"]
    datalist = write_json(tmp_path / "images.json", {"training": images, "validation": [pair(*"DE")]})
    finished = command.train(tmp_path / "unlabelled", datalist=datalist, **settings)
    assert finished.code == 1
    assert "the loss has a label term but the pair has no labels" in finished.error


@pytest.mark.skipif(find_spec("mlflow") is None, reason="needs mlflow")
def test_tracking_by_mlflow_records_the_loss(tiny_dataset, command, tmp_path):
    finished = command(
        "monai.bundle",
        "run",
        "training",
        "--config_file",
        TRAIN,
        "--tracking",
        "mlflow",
        "--tracking_uri",
        f"sqlite:///{tmp_path / 'runs.db'}",
        "--experiment_name",
        "tiny",
        *options({"output_dir": tmp_path / "run", **SMALL_TRAINING, "iterations": 2}),
        *options({"dataset_dir": tiny_dataset, "datalist": "datalist.json"}),
    )
    assert finished.code == 0, finished.error
    with sqlite3.connect(tmp_path / "runs.db") as database:
        recorded = {name for (name,) in database.execute("select distinct key from metrics")}
    assert {"train_loss", "val_loss"} <= recorded


# --- inference ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def registered(tiny_dataset, trained, tmp_path_factory):
    """Two pairs registered one after the other by the command of the README."""
    folder = tmp_path_factory.mktemp("registered")
    entries = [pair("F", "G", pair_id="first"), pair("A", "B", pair_id="second")]
    datalist = write_json(folder / "pairs.json", {"test": entries})
    finished = Command(folder).register(
        folder / "results",
        dataset_dir=tiny_dataset,
        datalist=datalist,
        weights=trained / "model.pt",
        inner_lr=0.001,
        pictures=True,
        quality_pages=True,
    )
    assert finished.code == 0, finished.error
    assert re.search(r"2 of 2 pairs registered \(\d good, \d to check, \d failed\)", finished.out)
    return folder / "results"


def test_every_pair_has_its_files_on_the_fixed_grid(registered, tiny_dataset):
    assert names(registered) == {"datalist.json", "first", "metrics.csv", "quality.html", "second", "summary.csv"}
    pages = {"overview.png", "quality.html"}
    for pair_id, fixed in (("first", "G"), ("second", "B")):
        files = {"displacement.nii.gz", "metrics.json", "resume.json", "warped_image.nii.gz", "warped_label.nii.gz"}
        assert names(registered / pair_id) == files | pages
        native = nib.load(tiny_dataset / f"images/{fixed}.nii.gz")
        for name in ("warped_image", "warped_label"):
            warped = nib.load(registered / pair_id / f"{name}.nii.gz")
            assert warped.shape == native.shape
            np.testing.assert_allclose(warped.affine, native.affine)
        field = nib.load(registered / pair_id / "displacement.nii.gz")
        assert field.shape == (*native.shape, 1, 3)
        assert field.header.get_intent()[0] == "vector"


def test_metrics_of_a_pair_say_what_was_done(registered):
    metrics = json.loads((registered / "first/metrics.json").read_text())
    assert metrics["pair_id"] == "first"
    assert metrics["steps"] == 2
    assert metrics["device"] == "cpu"
    assert len(metrics["loss"]) == 3
    assert metrics["loss"][-1] < metrics["loss"][0]
    assert all(seconds >= 0 for seconds in metrics["seconds"].values())
    (dsc,) = metrics["dsc"].values()
    assert 0 < dsc["before"] < 1
    assert 0 < dsc["after"] < 1
    assert 0 <= metrics["folded_percent"] <= 100


def test_table_has_a_row_per_pair_and_their_mean_and_sd(registered):
    rows = by_pair(registered)
    summary = by_pair(registered, "summary")
    assert (list(rows), list(summary)) == (["first", "second"], ["mean", "sd"])
    for column in ("loss_before", "loss_after", "dsc_before", "dsc_after", "folded_percent", "seconds"):
        first, second, mean, sd = (float(row[column]) for row in (*rows.values(), *summary.values()))
        assert mean == pytest.approx((first + second) / 2)
        assert sd == pytest.approx(abs(first - second) / 2**0.5)
    metrics = json.loads((registered / "second/metrics.json").read_text())
    assert metrics["adaptation"]["best_state"] == "step 2"
    assert float(rows["second"]["loss_after"]) == pytest.approx(metrics["loss"][-1])


def test_pair_registered_alone_gives_the_same_field_bit_for_bit(registered, trained, tiny_dataset, command, tmp_path):
    datalist = write_json(tmp_path / "pairs.json", {"test": [pair("A", "B", pair_id="second")]})
    settings = {"dataset_dir": tiny_dataset, "weights": trained / "model.pt", "inner_lr": 0.001}
    finished = command.register(tmp_path / "alone", datalist=datalist, **settings)
    assert finished.code == 0, finished.error
    assert np.array_equal(displacement(tmp_path / "alone", "second"), displacement(registered, "second"))
    assert displacement(registered, "second").std() > 0


def test_no_steps_are_the_plain_network(registered, trained, tiny_dataset, command, tmp_path):
    datalist = write_json(tmp_path / "pairs.json", {"test": [pair("F", "G", pair_id="first")]})
    settings = {"dataset_dir": tiny_dataset, "datalist": datalist, "weights": trained / "model.pt", "inner_lr": 0.001}
    for steps in (0, 5):
        assert command.register(tmp_path / str(steps), **settings | {"steps": steps}).code == 0
    zero, five = (json.loads((tmp_path / f"{steps}/first/metrics.json").read_text()) for steps in (0, 5))
    two = json.loads((registered / "first/metrics.json").read_text())
    assert zero["loss"] == two["loss"][:1] == five["loss"][:1]
    assert two["loss"] == five["loss"][:3]
    assert len(five["loss"]) == 6
    assert five["loss"][-1] < zero["loss"][0]
    assert not np.array_equal(displacement(tmp_path / "0", "first"), displacement(tmp_path / "5", "first"))


def test_steps_that_lead_nowhere_keep_what_was_before_them_and_are_flagged(trained, tiny_dataset, command, tmp_path):
    datalist = write_json(tmp_path / "pairs.json", {"test": [pair("F", "G", pair_id="first")]})
    settings = {"dataset_dir": tiny_dataset, "datalist": datalist, "weights": trained / "model.pt"}
    for name, more in (("start", {"steps": 0}), ("far", {"steps": 3, "inner_lr": 1e30})):
        finished = command.register(tmp_path / name, **settings | more)
        assert finished.code == 0, finished.error
    assert np.array_equal(displacement(tmp_path / "far", "first"), displacement(tmp_path / "start", "first"))
    metrics = json.loads((tmp_path / "far/first/metrics.json").read_text())
    start, identity = metrics["loss"][0], metrics["adaptation"]["loss_identity"]
    assert metrics["adaptation"] == {
        "best_state": "initial alignment" if identity < start else "start",
        "best_loss": min(identity, start),
        "loss_identity": identity,
        "lost_steps": 3,
        "stopped": "loss not finite after 1 steps",
    }
    reason = (
        "3 of the steps led to a loss or gradient that is not finite; the best field before was kept (check above 0)"
    )
    assert reason in metrics["verdict"]["reasons"]
    assert reason in finished.out
    row = by_pair(tmp_path / "far")["first"]
    assert float(row["loss_after"]) == pytest.approx(min(identity, start))


def test_without_weights_registration_starts_from_the_identity(tiny_dataset, command, tmp_path):
    datalist = write_json(tmp_path / "pairs.json", {"test": [pair("F", "G", pair_id="first")]})
    settings = {"dataset_dir": tiny_dataset, "datalist": datalist, "weights": "$None", "initial_alignment": "world"}
    for steps in (0, 3):
        assert command.register(tmp_path / str(steps), **settings | {"steps": steps, "inner_lr": 1e-5}).code == 0
    assert np.abs(displacement(tmp_path / "0", "first")).max() < 1e-4
    assert np.abs(displacement(tmp_path / "3", "first")).max() > 1e-3


def test_simulated_patients_are_trained_on_and_registered_with_landmarks(simulated_dataset, command, tmp_path):
    data = {"dataset_dir": simulated_dataset, "datalist": "datalist.json"}
    assert command.train(tmp_path / "run", iterations=2, **data).code == 0
    content = json.loads((simulated_dataset / "datalist.json").read_text())
    datalist = write_json(tmp_path / "pairs.json", {"test": content["test"][:1]})
    finished = command.register(
        tmp_path / "out", **data | {"datalist": datalist}, section="test", weights=tmp_path / "run/model.pt"
    )
    assert finished.code == 0, finished.error
    metrics = json.loads((tmp_path / "out" / content["test"][0]["pair_id"] / "metrics.json").read_text())
    # Between patients the apex alone corresponds.
    assert list(metrics["tre_mm"]) == list(metrics["warped_centroid_mm"]) == ["1"]
    assert list(metrics["centre_mm"]) == ["0"]
    assert metrics["tre_rms_mm"]["before"] > 0


@pytest.mark.skipif(not PROSTATE.is_dir(), reason="needs the prostate data beside the checkout")
def test_readme_command_trains_on_real_ultrasound(command, tmp_path):
    finished = command.train(
        tmp_path / "run", dataset_dir=PROSTATE, pixdim=8, iterations=2, pair_limits="{'validation':1,'test':1}"
    )
    assert finished.code == 0, finished.error
    written = json.loads((tmp_path / "run/datalist.json").read_text())
    pairs = [entry for section in written.values() for entry in section]
    assert all(entry[key].startswith("fixed_images/") for entry in pairs for key in ("fixed_image", "moving_image"))
    assert all(len(set(entry["patient"])) == 2 for entry in pairs)
    patients = {name: {p for entry in section for p in entry["patient"]} for name, section in written.items()}
    assert patients["training"].isdisjoint(patients["validation"] | patients["test"])
    assert (tmp_path / "run/model.pt").exists()


def test_dicom_and_metaimage_register_like_the_same_voxels_in_nifti(tiny_dataset, trained, command, tmp_path):
    for side, name in (("fixed", "F"), ("moving", "G")):
        voxels = nib.load(tiny_dataset / f"images/{name}.nii.gz").get_fdata()
        image = itk.image_from_array(np.ascontiguousarray(voxels.T).astype(np.int16))
        image.SetSpacing([1.4, 1.2, 1.0])
        itk.imwrite(image, str(tmp_path / f"{side}.nii.gz"))
        itk.imwrite(image, str(tmp_path / f"{side}.mha"))
        write_dicom_series(tmp_path / f"{side}_series", image)
    entries = [
        {"fixed_image": "fixed.nii.gz", "moving_image": "moving.nii.gz", "pair_id": "nifti"},
        {"fixed_image": "fixed_series", "moving_image": "moving.mha", "pair_id": "others"},
    ]
    finished = command.register(
        tmp_path / "out",
        dataset_dir=tmp_path,
        datalist=write_json(tmp_path / "pairs.json", {"test": entries}),
        weights=trained / "model.pt",
        pixdim=2.1,
    )
    assert finished.code == 0, finished.error
    for name in ("displacement", "warped_image"):
        nifti, others = (nib.load(tmp_path / f"out/{pair_id}/{name}.nii.gz") for pair_id in ("nifti", "others"))
        np.testing.assert_allclose(others.affine, nifti.affine, atol=1e-4)
        np.testing.assert_allclose(others.get_fdata(), nifti.get_fdata(), atol=1e-3)
    assert np.abs(nifti.get_fdata()).max() > 1


# --- masks --------------------------------------------------------------------------------------------------------


def losses(folder, pair_id):
    return json.loads((folder / pair_id / "metrics.json").read_text())["loss"]


@pytest.fixture
def fan_dataset(dataset):
    """The tiny data set with a fan's black outside and, in the datalist, a mask per image of what is inside."""
    inside = np.zeros(SHAPE, np.uint8)
    inside[3:-3, :-4] = 1
    for name in "ABCDEFG":
        path = dataset / f"images/{name}.nii.gz"
        image = 5 + nib.load(path).get_fdata(dtype=np.float32)
        write_volume(path, image * inside)
        write_volume(dataset / f"masks/{name}.nii.gz", inside)
    masks = {"moving_mask": "masks/{0}.nii.gz", "fixed_mask": "masks/{1}.nii.gz"}
    entries = {
        section: [pair(*names) | {key: path.format(*names) for key, path in masks.items()}]
        for section, names in (("training", "AB"), ("validation", "DE"), ("test", "FG"))
    }
    write_json(dataset / "masked.json", entries)
    write_json(dataset / "plain.json", {section: [pair(*entry["patient"])] for section, (entry,) in entries.items()})
    return dataset


def test_masks_are_trained_with_and_registered_with(fan_dataset, command, tmp_path):
    data = {"dataset_dir": fan_dataset, "datalist": "masked.json"}
    finished = command.train(tmp_path / "run", cache_dir=tmp_path / "cache", **data)
    assert finished.code == 0, finished.error
    settings = {"weights": tmp_path / "run/model.pt", "inner_lr": 0.001, "section": "test"}
    runs = {
        "masked": data,
        "plain": data | {"datalist": "plain.json"},
        "derived": data | {"datalist": "plain.json", "field_of_view": True},
    }
    for name, values in runs.items():
        finished = command.register(tmp_path / name, pictures=True, **values | settings)
        assert finished.code == 0, finished.error
    (pair_id,) = names(tmp_path / "masked") - {"datalist.json", "metrics.csv", "summary.csv"}
    masked, plain, derived = (losses(tmp_path / name, pair_id) for name in runs)
    assert masked[-1] < masked[0]
    assert abs(masked[0] - plain[0]) > 0.01
    # The masks in the datalist are those that the images show.
    assert derived == pytest.approx(masked, abs=1e-4)
    written = json.loads((tmp_path / "masked/datalist.json").read_text())["test"][0]
    assert written["fixed_mask"] == "masks/G.nii.gz"


def test_a_similarity_of_another_library_names_the_masks_it_cannot_take(fan_dataset, trained, command, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("similarity: {_target_: torch.nn.MSELoss}\n")
    values = {"dataset_dir": fan_dataset, "datalist": "masked.json", "weights": trained / "model.pt", "section": "test"}
    finished = command.register(tmp_path / "out", config=f"['{INFERENCE}','{overlay}']", **values)
    assert finished.code == 1
    assert "the pair has masks, which MSELoss does not take" in finished.error
    assert "Traceback" not in finished.error
