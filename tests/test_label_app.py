"""The parts of the MONAI Label app that need no MONAI Label: what may be asked for, what comes back, what is kept."""

import json
import os
import shutil
import sys
import warnings
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate
from toys import oblique_affine
from workflow_fixtures import volume

from bundle import Registration, register
from bundle.apps.label.__main__ import serve
from bundle.apps.label.candidates import candidates
from bundle.apps.label.datastore import Images, OriginalsKept, numbered_otherwise
from bundle.apps.label.errors import ClientError, one_answer, without_folders, without_paths
from bundle.apps.label.record import LossRecord
from bundle.apps.label.registrar import ServedWeights
from bundle.apps.label.request import OUTPUTS, Wanted
from bundle.apps.label.results import named, new_file, one_map, summary, write_result
from bundle.apps.label.settings import ServerSettings
from bundle.apps.label.studies import linked_studies, simulated_studies
from bundle.apps.label.training import Wish, better, prepare, read_progress, split_images
from bundle.system import DataWarning

pytest_plugins = ["workflow_fixtures"]

TINY = {"pixdim": 5.0, "downsampling": 1, "channels": 2, "steps": 2, "inner_lr": 0.01, "weights": None}
DEFAULTS = {"moving": ["", "a", "b"], "steps": 5, "output": list(OUTPUTS), "label": "final"}
FIXED = oblique_affine((5.0, 5.5, 6.0), (8, -5, 12), (-40.0, 20.0, 10.0))
MOVING = oblique_affine((5.5, 5.0, 6.5), (-6, 10, -4), (-30.0, 5.0, 30.0), mirrored=(1,))


class Store:
    """A datastore of MONAI Label, in memory."""

    def __init__(self, folder, labels, info=None, names=None):
        self.folder = folder
        self.labels = labels
        self.info = info or {}
        self.names = names or {}

    def list_images(self):
        return list(self.labels)

    def get_unlabeled_images(self):
        return [image for image, tags in self.labels.items() if "final" not in tags]

    def get_image_uri(self, image):
        return str(self.folder / f"{image}.nii.gz")

    def get_image_info(self, image):
        return self.info.get(image, {})

    def get_labels_by_image_id(self, image):
        return dict.fromkeys(self.labels.get(image, ()), image)

    def get_label_info(self, label, tag):
        if label in self.names:
            return {"label_info": [{"name": name, "idx": value} for name, value in self.names[label].items()]}
        return {"label_info": [{"name": "gland", "idx": 1}, {"name": "apex", "idx": 3}, {"color": [1, 2, 3]}]}


@pytest.fixture
def images(tmp_path):
    """Images b, c of one patient and a, d, e of one each; a and c are labelled."""
    store = Store(tmp_path, {"a": ["final"], "b": [], "c": ["final", "original"], "d": [], "e": []})
    for image in store.labels:
        (tmp_path / f"{image}.nii.gz").touch()
    (tmp_path / "patients.csv").write_text("image,patient\nb,Doe\nc,Doe\n")
    return Images(store, tmp_path, lambda label, tag: str(tmp_path / f"{label}.nii.gz"))


@pytest.fixture(scope="module")
def found():
    fixed, moving = volume(1)[0], volume(2)
    label = np.where(moving[0] > 70, 3, np.where(moving[0] > 55, 1, 0)).astype(np.int16)
    return register((fixed, FIXED), (moving[0], MOVING), moving_label=(label, MOVING), **TINY)


# --- what may be asked for --------------------------------------------------------------------------------------------


def test_a_viewer_gets_defaults_and_first_choices():
    wanted = Wanted.read({"image": "a", "moving": ["b", ""], "client_id": "user", "result_dtype": "uint8"}, DEFAULTS)
    assert wanted == Wanted("a", "b", 5, "warped", "final", ".nii.gz")


@pytest.mark.parametrize(
    ("output", "asked", "suffix"),
    [
        ("warped", ".nrrd", ".nrrd"),
        ("warped", ".seg.nrrd", ".nrrd"),
        ("label", ".seg.nrrd", ".seg.nrrd"),
        ("label", ".nrrd", ".nrrd"),
        ("displacement", ".nrrd", ".nii.gz"),
        ("displacement", ".seg.nrrd", ".nii.gz"),
    ],
)
def test_a_forced_extension_does_not_destroy_the_result(output, asked, suffix):
    assert Wanted.read({"image": "a", "output": output, "result_extension": asked}, DEFAULTS).suffix == suffix


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        ("steps", "$open('x')", "steps is .*expected a whole number from 0 to 500"),
        ("steps", 501, "expected a whole number"),
        ("steps", True, "expected a whole number"),
        ("steps", 2.5, "expected a whole number"),
        ("output", "affine", "output is 'affine'; expected one of warped, label, displacement"),
        ("moving", 3, "moving is a int; expected a text"),
        ("label", {"tag": "final"}, "label is a dict"),
        ("result_extension", ".png", "result_extension is '.png'; expected one of"),
    ],
)
def test_a_wrong_parameter_is_named(parameter, value, message):
    with pytest.raises(ClientError, match=message):
        Wanted.read({"image": "a", parameter: value}, DEFAULTS)


@pytest.mark.parametrize("image", ["/etc/passwd", "../a", "a.nii.gz", "", "x", "./a"])
def test_only_ids_lead_to_images(images, image):
    with pytest.raises(ClientError, match="no id of an image in the datastore") as raised:
        images.file(image, "moving")
    assert raised.value.status == 404
    assert images.file("a", "moving").name == "a.nii.gz"


@pytest.mark.parametrize("series", ["..", "1..2", "1.2/3", "1.2.840\n", "a"])
def test_only_series_uids_lead_to_images_of_a_dicomweb_server(tmp_path, series):
    (tmp_path / "1.2.840.nii.gz").touch()
    remote = Images(Store(tmp_path, {}), None, str)
    assert remote.file("1.2.840", "image").name == "1.2.840.nii.gz"
    with pytest.raises(ClientError):
        remote.file(series, "image")


def test_a_missing_label_names_those_there_are(images):
    assert images.require_label("a", "final").name == "a.nii.gz"
    with pytest.raises(ClientError, match=r"'b' has no label 'final' \(it has: none\)"):
        images.require_label("b", "final")
    with pytest.raises(ClientError, match=r"has no label '../x' \(it has: final, original\)"):
        images.require_label("c", "../x")
    assert images.label_names("a", "final") == {1: "gland", 3: "apex"}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("bad\nimage"), 422),
        (FileNotFoundError("x"), 422),
        (MemoryError("4 GiB"), 507),
        (torch.OutOfMemoryError("4 GiB"), 507),
        (KeyError("Doe"), 500),
        (ClientError("no", 404), 404),
    ],
)
def test_every_error_is_one_line_with_a_status(error, status, caplog):
    with pytest.raises(ClientError) as raised, one_answer():
        raise error
    assert raised.value.status == status
    assert "\n" not in str(raised.value)
    assert "Doe" not in str(raised.value) + caplog.text
    assert ("test_label_app.py" in caplog.text) == (status == 500)


# --- what comes back --------------------------------------------------------------------------------------------------


def read(path):
    """Voxels ``(X, Y, Z)`` and affine (RAS) as ITK sees a file."""
    image = itk.imread(str(path))
    affine = np.eye(4)
    affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.array(image.GetSpacing())
    affine[:3, 3] = np.array(image.GetOrigin())
    return itk.array_from_image(image).T, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz", ".nii", ".mha"])
def test_a_warped_image_keeps_its_numbers_on_the_fixed_grid(found, suffix, tmp_path):
    write_result(found, "warped", tmp_path / f"r{suffix}")
    voxels, affine = read(tmp_path / f"r{suffix}")
    assert voxels.dtype == np.float32
    np.testing.assert_array_equal(voxels, found.warped)
    np.testing.assert_allclose(affine, FIXED, atol=1e-4)


@pytest.mark.parametrize("suffix", [".nrrd", ".seg.nrrd", ".nii.gz"])
def test_a_label_is_bytes_on_the_fixed_grid(found, suffix, tmp_path):
    assert write_result(found, "label", tmp_path / f"r{suffix}") == [1, 3]
    voxels, affine = read(tmp_path / f"r{suffix}")
    assert voxels.dtype == np.uint8
    np.testing.assert_array_equal(voxels, found.warped_label[0])
    assert (voxels == 3).any()
    np.testing.assert_allclose(affine, FIXED, atol=1e-4)


def test_a_proposal_is_where_the_maps_of_the_fixed_image_are_above_one_half(found, tmp_path):
    assert found.proposed_label is None
    grid = found.data["fixed_image"]
    gland = torch.zeros(grid.shape[1:])
    gland[: grid.shape[1] // 2] = 1
    maps = MetaTensor(torch.stack([gland, 0.4 * gland]), affine=grid.affine)
    proposed = Registration({**found.data, "fixed_maps": maps})
    assert write_result(proposed, "label", tmp_path / "r.nii.gz", proposal=True) == [1]
    voxels, affine = read(tmp_path / "r.nii.gz")
    np.testing.assert_allclose(affine, FIXED, atol=1e-4)
    nearest = np.indices(voxels.shape).reshape(3, -1)
    world = FIXED[:3, :3] @ nearest + FIXED[:3, 3:]
    on_grid = np.linalg.inv(np.asarray(grid.affine)) @ np.vstack([world, np.ones(world.shape[1])])
    expected = (on_grid[0] < grid.shape[1] // 2 - 0.5).reshape(voxels.shape)
    inside = (
        ((on_grid[:3] > 0.5) & (on_grid[:3] < np.array(grid.shape[1:])[:, None] - 1.5)).all(0).reshape(voxels.shape)
    )
    assert 0.1 < voxels[inside].mean() < 0.9
    assert (voxels == expected)[inside].mean() > 0.99
    assert named([1], {}, " (proposed)") == {"structure 1 (proposed)": 1}


def test_a_proposal_is_asked_for_in_place_of_a_tag():
    assert Wanted.read({"image": "a", "output": "label", "label": "maps"}, DEFAULTS).proposal
    assert not Wanted.read({"image": "a", "output": "warped", "label": "maps"}, DEFAULTS).proposal
    assert not Wanted.read({"image": "a", "output": "label"}, DEFAULTS).proposal


def test_a_displacement_is_what_itk_applies(found, tmp_path):
    assert write_result(found, "displacement", tmp_path / "r.nii.gz") == []
    written = nib.load(tmp_path / "r.nii.gz")
    assert written.shape == (*found.warped.shape, 1, 3)
    expected = np.array([-1, -1, 1]) * np.moveaxis(found.displacement, 0, -1)
    np.testing.assert_allclose(np.asarray(written.dataobj)[..., 0, :], expected, atol=1e-5)
    np.testing.assert_allclose(written.affine, FIXED, atol=1e-5)


def test_channels_become_one_map_of_the_smallest_type():
    channels = np.zeros((3, 2, 2, 1))
    channels[0] = 1
    channels[2, 0, 0] = 1
    merged = one_map(channels)
    assert merged.dtype == np.uint8
    assert merged[..., 0].tolist() == [[3, 1], [1, 1]]
    assert one_map(np.full((1, 2, 2, 2), 300.0)).dtype == np.uint16
    assert one_map(np.full((1, 2, 2, 2), -1.0)).dtype == np.int8


def test_names_of_structures_go_by_their_values():
    assert list(named([3, 1, 7], {1: "gland", 3: "apex", 9: "x"}).items()) == [
        ("gland", 1),
        ("apex", 3),
        ("structure 7", 7),
    ]


def test_values_of_one_name_are_all_shown():
    """MONAI Label #1856: structures were collapsed into one."""
    assert named([3, 1, 2], {1: "Segment", 2: "gland", 3: "Segment"}) == {"Segment 1": 1, "gland": 2, "Segment 3": 3}


def test_the_json_names_the_pair_by_ids_and_can_be_sent(found):
    answer = summary(found, "a", "b", "warped")
    json.dumps(answer, allow_nan=False)
    assert answer["pair"] == {"fixed": "a", "moving": "b"}
    assert answer["verdict"] in ("good", "check", "failed")
    assert len(answer["losses"]) == TINY["steps"] + 1
    assert "pair_id" not in answer["metrics"]


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_published_weights_are_served_and_those_before_are_kept(tmp_path):
    for name in ("start", "first", "second"):
        (tmp_path / f"{name}.pt").write_text(name)
    served = ServedWeights(tmp_path / "served", tmp_path / "start.pt")
    assert served.path.read_text() == "start"
    before = served.digest()
    for name in ("first", "second"):
        served.publish(tmp_path / f"{name}.pt")
    assert (served.path.read_text(), served.previous.read_text()) == ("second", "first")
    assert served.digest() != before
    before = served.digest()
    (tmp_path / "served/model_maps_0.pt").write_text("maps")
    assert served.digest() != before
    with pytest.raises(OSError):
        served.publish(tmp_path / "missing.pt")
    assert served.path.read_text() == "second"


def test_losses_are_kept_until_the_weights_change(tmp_path):
    record = LossRecord(tmp_path / "losses.json")
    record.add("w1", ("a", "b"), -0.5)
    record.propose(("a", "b"))
    again = LossRecord(tmp_path / "losses.json")
    assert again.losses("w1") == {("a", "b"): -0.5}
    assert again.losses("w2") == {}
    assert (again.proposed("a"), again.proposed("b")) == ("b", "")
    again.add("w2", ("c", "d"), 1.0)
    assert again.losses("w2") == {("c", "d"): 1.0}
    (tmp_path / "losses.json").write_text("{")
    assert LossRecord(tmp_path / "losses.json").losses("w2") == {}


def test_candidates_wait_for_a_person_and_begin_with_the_same_patient(images):
    images.store.info = {"d": {"strategy": {"largest_loss": {"ts": 7}}}}
    pairs = [each.pair for each in candidates(images, "largest_loss")]
    # a and c are labelled; d was proposed already; of the others a labelled partner comes first.
    assert pairs[:4] == [("b", "c"), ("e", "a"), ("b", "a"), ("e", "c")]
    assert {fixed for fixed, _ in pairs} == {"b", "d", "e"}
    assert len(pairs) == 12
    assert [pair for pair in pairs[-4:] if pair[0] == "d"] == pairs[-4:]


def test_an_image_that_cannot_be_read_does_not_keep_the_others_from_being_proposed(tmp_path, monkeypatch):
    """It is called a: without patients and labels, everyone's first partner."""

    class Strategy:
        def __init__(self, description):
            self.description = description

    name = "monailabel.interfaces.tasks.strategy"
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(Strategy=Strategy))
    monkeypatch.delitem(sys.modules, "bundle.apps.label.strategy", raising=False)
    for package in ("monailabel", "monailabel.interfaces", "monailabel.interfaces.tasks"):
        monkeypatch.setitem(sys.modules, package, SimpleNamespace(__path__=[]))
    largest_loss = import_module("bundle.apps.label.strategy").LargestLoss
    monkeypatch.delitem(sys.modules, "bundle.apps.label.strategy")

    class Registrar:
        origin, record, asked = "weights", LossRecord(tmp_path / "losses.json"), 0

        def __call__(self, pair, fixed, moving):
            self.asked += 1
            if "a" in pair:
                raise ClientError("damaged")
            self.record.add(self.origin, pair, 1.0)

    store = Store(tmp_path, {name: [] for name in "abcdef"})
    for image in store.labels:
        (tmp_path / f"{image}.nii.gz").touch()
    registrar = Registrar()
    propose = largest_loss(registrar, Images(store, tmp_path, str), at_once=4)
    answers = [propose({}, store) for _ in range(4)]
    assert registrar.asked == 4 * 4
    assert answers[0] is None
    assert answers[-1]["loss"] == 1.0
    assert "a" not in (answers[-1]["id"], answers[-1]["moving"])


# --- training and settings --------------------------------------------------------------------------------------------


def test_images_are_split_by_patient_under_numbers(images, tmp_path):
    sections = split_images(images, Wish())
    patients = {section: {entry["patient"] for entry in entries} for section, entries in sections.items()}
    assert not patients["training"] & patients["validation"]
    assert {len(names) for names in patients.values()} == {2}
    assert sum(map(len, sections.values())) == 5
    assert "Doe" not in json.dumps(sections)
    assert not any("label" in entry for entry in sections["training"])
    labelled = [entry for entries in split_images(images, Wish(labels=True)).values() for entry in entries]
    assert sum("label" in entry for entry in labelled) == 2
    few = Images(Store(tmp_path, {"a": [], "b": [], "c": []}), tmp_path, str)
    with pytest.raises(ClientError, match="images of 2 patients; training needs 4"):
        split_images(few, Wish())


def test_labels_that_were_numbered_otherwise_correspond_by_name(images, tmp_path):
    """3D Slicer numbers the segments of every image anew, by their order; c has the apex first."""
    images.store.names = {"c": {"apex": 1, "gland": 2}}
    entries = [entry for entries in split_images(images, Wish(labels=True)).values() for entry in entries]
    found = {Path(entry["image"]).name[0]: entry["structures"] for entry in entries if "label" in entry}
    assert found == {"a": {"gland": 1, "apex": 3}, "c": {"apex": 1, "gland": 2}}
    with pytest.raises(ClientError, match="compared by value, and '(gland|apex)' is . and .; save all in one order"):
        split_images(images, Wish(pairing="within patients"))
    assert numbered_otherwise({"gland": 1, "apex": 2}, {"apex": 1}) == "'apex' is 2 and 1"
    assert not numbered_otherwise({"gland": 1, "apex": 2}, {"apex": 2, "base": 1})


def test_values_are_not_learned_where_labels_number_them_otherwise(tmp_path):
    names = {name: {"gland": 1 + number % 2, "apex": 2 - number % 2} for number, name in enumerate("abcde")}
    store = Store(tmp_path, {name: ["final"] for name in names}, names=names)
    for name in names:
        (tmp_path / f"{name}.nii.gz").touch()
    images = Images(store, tmp_path, lambda label, tag: str(tmp_path / f"{label}.nii.gz"))
    settings = ServerSettings.read({"device": "cpu"})
    with pytest.raises(
        ClientError, match=r"the values \[0, 1, 2\], and the labels number theirs differently; name them"
    ):
        prepare(tmp_path / "runs", settings.start, settings, images, Wish(2, labels=True))
    assert not (tmp_path / "runs").exists()


def test_a_wish_for_training_is_numbers_and_choices():
    assert Wish.read({"iterations": 7, "pairing": ["within patients", "between patients"]}) == Wish(
        7, "within patients"
    )
    for request in (
        {"iterations": "$1"},
        {"iterations": 0},
        {"pairing": "$x"},
        {"labels": "yes"},
        {"iterations": True},
    ):
        with pytest.raises(ClientError, match="expected"):
            Wish.read(request)


def test_a_training_does_the_meta_updates_that_were_asked_for(images, tmp_path):
    settings = ServerSettings.read({"device": "cpu"})
    for asked, epochs, each in ((2, 1, 2), (20, 1, 20), (60, 3, 20), (50, 3, 17)):
        parser = prepare(tmp_path / "runs", settings.start, settings, images, Wish(asked))
        assert parser.get_parsed_content("epoch_length") == each
        assert parser.get_parsed_content("train::trainer::max_epochs") == epochs


def test_a_training_that_sees_labels_is_on_the_images_that_have_one(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("structures: [1, 3]\npixdim: 5.0\ndownsampling: 1\nmap_weights: null\n")
    store = Store(tmp_path, {name: ["final"] if name < "f" else [] for name in "abcdefg"})
    (tmp_path / "labels").mkdir()
    for seed, name in enumerate(store.labels):
        image, _ = volume(seed)
        label = np.where(image > 70, 3, np.where(image > 55, 1, 0)).astype(np.uint8)
        nib.save(nib.Nifti1Image(image, FIXED), tmp_path / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(label, FIXED), tmp_path / f"labels/{name}.nii.gz")
    images = Images(store, tmp_path, lambda label, tag: str(tmp_path / f"labels/{label}.nii.gz"))
    settings = ServerSettings.read({"device": "cpu", "train_config": f"train.yaml,{own}"})
    parser = prepare(tmp_path / "runs", settings.start, settings, images, Wish(2, labels=True))
    dataset = parser.get_parsed_content("train::dataset")
    listed = json.loads(Path(parser["datalist"]).read_text())["training"]
    assert 2 <= len(listed) < 5
    assert all("label" in entry for entry in listed)
    pair, labels = parser.get_parsed_content("prepare_batch")(list_data_collate([dataset[0]]))
    assert labels.shape[1] == 2 * 2
    terms = parser.get_parsed_content("loss")(torch.zeros(1, 3, *pair.shape[2:]), pair, labels)
    assert terms["label"] > 0.1
    unseen = prepare(tmp_path / "runs", settings.start, settings, images, Wish(2))
    assert unseen.get_parsed_content("loss").label is None


def test_better_weights_lower_the_loss_and_no_dsc():
    assert better({"loss": 1.0}, {"loss": 2.0})
    assert not better({"loss": 2.0}, {"loss": 2.0})
    assert better({"loss": 1.0, "dsc": 0.9}, {"loss": 2.0, "dsc": 0.8})
    assert not better({"loss": 1.0, "dsc": 0.7}, {"loss": 2.0, "dsc": 0.8})


def test_progress_without_a_file_is_nothing(tmp_path):
    assert read_progress(tmp_path / "progress.json") == {}
    (tmp_path / "progress.json").write_text(json.dumps({"epoch": 2, "validation": {"val_loss": -1.0}}))
    assert read_progress(tmp_path / "progress.json")["best_metric"] == 0.0


def test_settings_of_the_server_are_checked_at_once(tmp_path):
    settings = ServerSettings.read({"labels": "gland, apex", "device": "cpu", "config": "inference.yaml,cpu.yaml"})
    assert (settings.labels, settings.device, settings.steps) == (("gland", "apex"), "cpu", 5)
    assert settings.start.name == "model.pt"
    assert [file.rsplit("/", 1)[1] for file in settings.train_config] == ["train.yaml", "cpu.yaml"]
    alone = ServerSettings.read({"labels": "gland, apex", "device": "cpu", "config": "cpu.yaml"})
    assert alone == settings
    for conf, message in (
        ({"stepps": "5"}, "--conf has stepps; expected config"),
        ({"weights": "none.pt"}, "weights not found: .*; give a file with --weights"),
        ({"device": "gpu"}, "device is 'gpu'"),
        ({"device": "cuda:99"}, "device is cuda:99, and torch finds"),
        ({"config": "none.yaml"}, "configuration not found"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            ServerSettings.read(conf)


def test_a_folder_that_is_not_there_is_not_made(tmp_path, monkeypatch):
    monkeypatch.setattr("bundle.apps.label.__main__.find_spec", lambda name: SimpleNamespace())
    with pytest.raises(FileNotFoundError, match="studies not found"):
        serve(str(tmp_path / "studdies"), home=str(tmp_path / "home"))
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("bundle.apps.label.__main__.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="make label"):
        serve(str(tmp_path))


def test_warnings_that_name_files_stay_out_of_the_log(tmp_path, monkeypatch, recwarn):
    """The first image with an odd header was named on the server's console, by a name that may be a patient's."""

    class Main:
        def __init__(self, loglevel):
            pass

        def run(self):
            warnings.warn("Jane_Doe.nii.gz: its header has no unit of length", DataWarning, stacklevel=1)

    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.float32), np.eye(4)), tmp_path / "Jane_Doe.nii.gz")
    monkeypatch.setattr("bundle.apps.label.__main__.find_spec", lambda name: SimpleNamespace())
    monkeypatch.setitem(sys.modules, "monailabel.main", SimpleNamespace(Main=Main))
    monkeypatch.setitem(sys.modules, "monailabel", SimpleNamespace())
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(sys, "argv", ["label"])
    serve(str(tmp_path), home=str(tmp_path.with_name("home")))
    assert not [warning for warning in recwarn if warning.category is DataWarning]


def test_without_studies_patients_are_simulated(tmp_path):
    folder = simulated_studies(tmp_path / "studies")
    assert len(list(folder.glob("*.nii.gz"))) == 12
    labels = sorted((folder / "labels/final").iterdir())
    assert [label.name for label in labels] == [f"P0{patient}_0.nii.gz" for patient in range(6)]
    label = nib.load(labels[0])
    assert label.shape == nib.load(folder / labels[0].name).shape
    assert np.unique(label.dataobj).tolist() == [0, 1]
    assert list(tmp_path.iterdir()) == [folder]


def test_an_answer_that_fails_leaves_no_file(tmp_path):
    with new_file(tmp_path, ".nii") as sent:
        sent.write_bytes(b"whole")
    with pytest.raises(OSError, match="full"), new_file(tmp_path, ".nii") as file:
        file.write_bytes(b"half")
        raise OSError("full")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"whole"]


class FollowingLinks:
    """What MONAI Label's datastore of files does with images; the server's own tests have the real one."""

    def __init__(self, folder):
        images = {name: SimpleNamespace(image=SimpleNamespace(ext=".nii.gz")) for name in "ab"}
        self._datastore = SimpleNamespace(image_path=lambda: str(folder), objects=images)
        self.folder = folder

    def _to_id(self, file):
        return file.removesuffix(".nii.gz"), ".nii.gz"

    def add_image(self, image_id, image_filename, image_info):
        shutil.copy(image_filename, (self.folder / f"{image_id}.nii.gz").resolve())

    def remove_image(self, image_id):
        (self.folder / f"{image_id}.nii.gz").resolve().unlink()


class LinksKept(OriginalsKept, FollowingLinks):
    pass


def test_an_uploaded_image_takes_the_place_of_a_link_and_outlives_a_start(tmp_path):
    images, upload = tmp_path / "images", tmp_path / "upload.nii.gz"
    images.mkdir()
    for path in (images / "a.nii.gz", images / "b.nii.gz", upload):
        path.write_bytes(path.name.encode())
    folder = linked_studies(images, tmp_path / "home")
    LinksKept(folder).add_image("a", str(upload), {})
    assert linked_studies(images, tmp_path / "home") == folder
    assert (folder / "a.nii.gz").read_bytes() == b"upload.nii.gz"
    assert {path.name: path.read_bytes() for path in images.iterdir()} == {
        "a.nii.gz": b"a.nii.gz",
        "b.nii.gz": b"b.nii.gz",
    }
    assert sorted(path.name for path in folder.iterdir()) == ["a.nii.gz", "b.nii.gz", "labels"]


def test_images_that_monai_label_does_not_list_are_told(tmp_path):
    """The server started without them, in silence."""
    (tmp_path / "a.mha").touch()
    with pytest.raises(FileNotFoundError, match=r"no image in .*; expected files of .nii.gz, .nii, .nrrd, "):
        linked_studies(tmp_path, tmp_path / "home")
    (tmp_path / "b.nii").touch()
    with pytest.warns(DataWarning, match="^1 of the images in .* convert them to NIfTI$"):
        folder = linked_studies(tmp_path, tmp_path / "home")
    assert sorted(path.name for path in folder.iterdir()) == ["b.nii", "labels"]


def test_a_label_that_was_copied_by_half_is_copied_again(tmp_path, monkeypatch):
    images, labels = tmp_path / "images", tmp_path / "labels"
    for folder in (images, labels):
        folder.mkdir()
        (folder / "a.nii.gz").write_bytes(b"whole")

    def full(source, target):
        Path(target).write_bytes(b"wh")
        raise OSError("No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", full)
        with pytest.raises(OSError, match="No space"):
            linked_studies(images, tmp_path / "home")
    folder = linked_studies(images, tmp_path / "home")
    assert [path.read_bytes() for path in (folder / "labels/final").iterdir()] == [b"whole"]


def test_the_users_folder_of_images_stays_as_it_is(tmp_path):
    home, images, labels = tmp_path / "home", tmp_path / "data/images", tmp_path / "data/labels"
    for folder in (images, labels):
        folder.mkdir(parents=True)
    for path in (images / "a.nii.gz", images / "b.nii.gz", labels / "a.nii.gz", labels / "z.nii.gz"):
        path.write_bytes(path.name.encode())
    (tmp_path / "data/patients.csv").write_text("image,patient\na,A\nb,B\n")
    before = {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()}
    folder = linked_studies(images, home)
    assert (folder / "a.nii.gz").read_bytes() == b"a.nii.gz"
    assert sorted(path.name for path in (folder / "labels/final").iterdir()) == ["a.nii.gz"]
    assert (folder / "patients.csv").exists()
    # What MONAI Label does: it saves a label and its list, and a client deletes an image.
    (folder / "labels/final/a.nii.gz").write_bytes(b"corrected")
    (folder / "datastore_v2.json").write_text("{}")
    LinksKept(folder).remove_image("b")
    assert not (folder / "b.nii.gz").exists()
    assert {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()} == before
    (images / "a.nii.gz").rename(images / "c.nii.gz")
    assert linked_studies(images, home) == folder
    assert sorted(path.name for path in folder.glob("*.nii.gz")) == ["b.nii.gz", "c.nii.gz"]
    assert (folder / "labels/final/a.nii.gz").read_bytes() == b"corrected"
    with pytest.raises(FileNotFoundError, match="no image in"):
        linked_studies(tmp_path / "data", tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/srv/home/a.nii.gz cannot be read", "a.nii.gz cannot be read"),
        ("weights not found: /srv/x/start.pt; give a file", "weights not found: start.pt; give a file"),
        ("'/srv/a.dcm' and /tmp/b/c.dcm differ", "'a.dcm' and c.dcm differ"),
        ("expected 1/2 of https://example.org/a/b or and/or", "expected 1/2 of https://example.org/a/b or and/or"),
    ],
)
def test_answers_name_files_without_the_folders_of_the_server(text, expected):
    assert without_folders(text) == expected


def test_no_part_of_an_answer_holds_a_folder_of_the_server():
    home = Path("/srv/my server/home")
    line = f"App from: {home}; studies: {home}/studies_1; conf: {{'config': 'a.yaml,{home}/b.yaml'}}; not {home}2"
    answer = {
        "path": "/data/Doe John/a.nii.gz",
        "details": [line, 'File "/usr/lib/python3/app.py", line 3', "error: iterations is 0; expected 1/2"],
        "pairs": [{"image": "/data/Doe John/a.nii.gz", "labels": {"gland/apex": 1}, "loss": -0.25}],
        "detail": "moving is '/etc/passwd', no id of an image",
        "names": ["left /right/ lobe", "and/or", "https://example.org/a/b", "/"],
    }
    assert without_paths(answer, [home.parent, home]) == {
        "path": "",
        "details": [
            "App from: home; studies: studies_1; conf: {'config': 'a.yaml,b.yaml'}; not home2",
            'File "app.py", line 3',
            "error: iterations is 0; expected 1/2",
        ],
        "pairs": [{"image": "a.nii.gz", "labels": {"gland/apex": 1}, "loss": -0.25}],
        "detail": "moving is '/etc/passwd', no id of an image",
        "names": ["left /right/ lobe", "and/or", "https://example.org/a/b", "/"],
    }


def test_an_answer_says_what_is_wrong_inside_a_transform():
    with pytest.raises(ClientError, match="^no structure 2$") as raised, one_answer():
        try:
            raise ValueError("no structure 2")
        except ValueError as error:
            raise RuntimeError("applying transform <Timed>") from error
    assert raised.value.status == 422


def test_an_answer_calls_a_file_by_what_the_client_knows():
    file = Path("/srv/home/Doe_John.nii.gz")
    with pytest.raises(ClientError) as raised, one_answer({file: "moving image 'x'"}):
        raise ValueError(f"{file}: cannot be read; compare /srv/home/other.nii.gz")
    assert str(raised.value) == "moving image 'x': cannot be read; compare other.nii.gz"
