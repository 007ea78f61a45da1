"""The MONAI Label app in a real server on this machine, driven over HTTP as 3D Slicer and OHIF drive it."""

import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from test_label_app import read
from toys import oblique_affine
from workflow_fixtures import INFERENCE, ROOT, volume

from bundle import register

pytest.importorskip("monailabel", reason="MONAI Label is not installed here: run it in the environment of make label")
import requests  # noqa: E402
from monailabel.client.client import MONAILabelClient, MONAILabelClientException  # noqa: E402

SMALL = {
    "pixdim": 5.0,
    "channels": 2,
    "downsampling": 1,
    "steps": 2,
    "inner_lr": 0.01,
    "inner_steps": 2,
    "regularisation_weight": 1.0,
    "pair_limits": {"training": None, "validation": 2, "test": None},
}
SLICER = {"result_extension": ".nrrd", "result_dtype": "uint8", "client_id": "user-xyz"}
OHIF = {**SLICER, "result_compress": False, "restore_label_idx": False}
PATIENTS = ("doe_jane", "roe_rich", "poe_ed", "loe_lou")
FIRST = [f"{patient}_0" for patient in PATIENTS]
SECOND = [f"{patient}_1" for patient in PATIENTS]


@dataclass
class Server:
    """A running server.

    Attributes:
        url: its address.
        studies: folder of the images.
        home: its own folder.
        settings: of registration, with the weights that it started with.
    """

    url: str
    studies: Path
    home: Path
    settings: dict

    def infer(self, model, image, part, params):
        """A request as OHIF sends it, for a part of the answer: ``image``, ``json``, ``all``."""
        files = {"params": (None, json.dumps(params))}
        return requests.post(
            f"{self.url}/infer/{model}", params={"image": image, "output": part}, files=files, timeout=600
        )

    def registered(self, fixed, moving, **params):
        """JSON of an answer."""
        return self.infer("registration", fixed, "json", {"moving": moving, **params}).json()

    def file(self, folder, image, params):
        """File of an answer."""
        response = self.infer("registration", image, "image", params)
        assert response.status_code == 200, response.text
        name = response.headers["content-disposition"].split('filename="')[1].rstrip('"')
        path = folder / f"answer{name[name.index('.') :]}"
        path.write_bytes(response.content)
        return path

    def expected(self, fixed, moving, **more):
        """The same registration by the bundle."""
        files = [self.studies / f"{image}.nii.gz" for image in (fixed, moving)]
        return register(*files, config_file=[INFERENCE, self.home.parent / "small.yaml"], **self.settings, **more)

    def label(self, image):
        return self.studies / f"labels/final/{image}.nii.gz"

    def info(self):
        return requests.get(f"{self.url}/info/", timeout=600).json()

    def train(self, **params):
        return requests.post(f"{self.url}/train/registration", json=params, timeout=600)

    def wait_for(self, done, seconds=600):
        """Wait until a condition on the state of the training holds."""
        for _ in range(seconds * 5):
            stats = self.info()["train_stats"]["registration"]
            task = requests.get(f"{self.url}/train/", timeout=600).json()
            if done(task, stats):
                return task, stats
            time.sleep(0.2)
        raise AssertionError((task, stats))


def write_studies(folder):
    """Two scans of each of four patients, oblique and of different sizes; the first ones are labelled 1 and 3."""
    labels = folder / "labels/final"
    labels.mkdir(parents=True)
    for number, patient in enumerate(PATIENTS):
        for scan in (0, 1):
            affine = oblique_affine((5.0, 5.5, 6.0 - scan), (8 - 20 * scan, -5, 12 + number), (-40.0, 20.0, 10.0))
            image, _ = volume(2 * number + scan, (20, 18 + scan, 16 - scan))
            nib.save(nib.Nifti1Image(image, affine), folder / f"{patient}_{scan}.nii.gz")
            if scan == 0:
                label = np.where(image > 70, 3, np.where(image > 55, 1, 0)).astype(np.uint8)
                nib.save(nib.Nifti1Image(label, affine), labels / f"{patient}_{scan}.nii.gz")
    rows = [f"{patient}_{scan},{patient}\n" for patient in PATIENTS for scan in (0, 1)]
    (folder / "patients.csv").write_text("image,patient\n" + "".join(rows))


def write_weights(path, small):
    """Weights of the small network that are not the identity."""
    parser = ConfigParser(ConfigParser.load_config_files([INFERENCE, small]))
    torch.manual_seed(0)
    parser["map_weights"] = None
    network = parser.get_parsed_content("network_def")
    torch.save({name: value + 0.05 * torch.randn_like(value) for name, value in network.state_dict().items()}, path)


def start_server(folder, studies, **environment):
    """Run a server while the generator waits: ``yield from`` it in a fixture."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "bundle.apps.label", "--studies", studies, "--home", folder / "home"]
    command += ["--port", port, "--config", f"inference.yaml,{folder}/small.yaml", "--weights", folder / "start.pt"]
    command += ["--device", "cpu", "--labels", "gland,urethra"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": str(folder), **environment}
    settings = {"weights": str(folder / "start.pt"), "device": "cpu"}
    running = Server(f"http://127.0.0.1:{port}", Path(studies), folder / "home", settings)
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            list(map(str, command)), cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            wait_until_up(running, process, folder / "log.txt")
            yield running
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a server")
    write_studies(folder / "studies")
    (folder / "small.yaml").write_text(json.dumps(SMALL))
    write_weights(folder / "start.pt", folder / "small.yaml")
    yield from start_server(folder, folder / "studies")


def wait_until_up(server, process, log):
    for _ in range(6000):
        assert process.poll() is None, log.read_text()
        try:
            server.info()
            return
        except requests.ConnectionError:
            time.sleep(0.1)
    raise AssertionError(log.read_text())


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_viewers_list_the_model_its_labels_and_its_options(server):
    info = server.info()
    assert {name: model["type"] for name, model in info["models"].items()} == {
        "registration": "others",
        "carry_label": "segmentation",
    }
    label = info["models"]["carry_label"]
    assert label["labels"] == {"gland": 1, "urethra": 2}
    assert label["config"] == {
        "moving": ["", *sorted(FIRST + SECOND)],
        "steps": 2,
        "output": ["label"],
        "label": "final",
    }
    assert list(info["trainers"]["registration"]["config"]) == ["iterations", "pairing", "labels"]
    assert list(info["strategies"]) == ["largest_loss"]


def test_slicer_shows_a_carried_label(server, tmp_path):
    client = MONAILabelClient(server.url, str(tmp_path))
    options = server.info()["models"]["carry_label"]["config"]
    params = {name: value[0] if isinstance(value, list) else value for name, value in options.items()}
    file, answer = client.infer("carry_label", SECOND[0], {**params, "moving": FIRST[0], **SLICER})
    voxels, affine = read(file)
    expected = server.expected(SECOND[0], FIRST[0], moving_label=server.label(FIRST[0]))
    assert file.endswith(".nrrd")
    assert voxels.dtype == np.uint8
    np.testing.assert_array_equal(voxels, expected.warped_label[0])
    np.testing.assert_allclose(affine, nib.load(server.studies / f"{SECOND[0]}.nii.gz").affine, atol=1e-4)
    # Slicer names the k-th value that it finds by the k-th name.
    assert list(answer["label_names"].items()) == [("gland", 1), ("structure 3", 3)]
    assert answer["pair"] == {"fixed": SECOND[0], "moving": FIRST[0]}
    assert answer["losses"] == expected.metrics["loss"]
    assert answer["verdict"] == expected.metrics["verdict"]["verdict"]
    assert answer["seconds"] > 0


def test_ohif_shows_a_carried_label(server):
    response = server.infer("carry_label", SECOND[1], "image", {"moving": [FIRST[1], ""], "steps": "2", **OHIF})
    header, voxels = response.content.split(b"\n\n", 1)
    # OHIF takes what follows the header for bytes.
    assert b"encoding: raw" in header
    assert b"type: unsigned char" in header
    expected = server.expected(SECOND[1], FIRST[1], moving_label=server.label(FIRST[1]))
    np.testing.assert_array_equal(np.frombuffer(voxels, np.uint8), expected.warped_label[0].ravel(order="F"))


def test_a_warped_image_survives_the_types_that_viewers_force(server, tmp_path):
    forced = {**SLICER, "result_extension": ".seg.nrrd"}
    path = server.file(tmp_path, SECOND[0], {"moving": FIRST[1], "output": "warped", **forced})
    voxels, affine = read(path)
    assert (path.name, voxels.dtype) == ("answer.nrrd", np.float32)
    np.testing.assert_array_equal(voxels, server.expected(SECOND[0], FIRST[1]).warped)
    np.testing.assert_allclose(affine, nib.load(server.studies / f"{SECOND[0]}.nii.gz").affine, atol=1e-4)


def test_a_displacement_is_in_mm_as_the_bundle_writes_it(server, tmp_path):
    path = server.file(tmp_path, SECOND[0], {"moving": FIRST[1], "output": "displacement", **SLICER})
    written = np.asarray(nib.load(path).dataobj)[..., 0, :]
    expected = server.expected(SECOND[0], FIRST[1]).displacement
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(np.moveaxis(written, -1, 0) * [[[[-1]]], [[[-1]]], [[[1]]]], expected, atol=1e-5)


def test_json_alone_scores_labels_that_are_there(server):
    answer = server.registered(FIRST[0], FIRST[1])
    sides = {"fixed_label": server.label(FIRST[0]), "moving_label": server.label(FIRST[1])}
    assert answer["dsc"] == server.expected(FIRST[0], FIRST[1], **sides).metrics["dsc"]
    assert set(answer["dsc"]) == {"1", "3"}


def test_steps_of_a_request_are_taken(server):
    losses = [server.registered(SECOND[2], FIRST[2], steps=steps)["losses"] for steps in (0, 4)]
    assert [len(each) for each in losses] == [1, 5]
    assert losses[0][0] == losses[1][0]


@pytest.mark.parametrize(
    ("model", "image", "params", "status", "message"),
    [
        ("registration", SECOND[0], {"moving": "/etc/passwd"}, 404, "moving is '/etc/passwd', no id of an image"),
        ("registration", "/etc/passwd", {"moving": FIRST[0]}, 400, "image is '/etc/passwd'; expected an id"),
        ("registration", "passwd", {"moving": FIRST[0]}, 404, "image is 'passwd', no id of an image"),
        ("registration", SECOND[0], {"moving": f"../studies/{FIRST[0]}"}, 404, "no id of an image"),
        ("registration", SECOND[0], {"image": "/etc/passwd", "moving": FIRST[0]}, 404, "no id of an image"),
        ("registration", FIRST[0], {}, 400, "give its id as the parameter 'moving'"),
        ("registration", SECOND[0], {"moving": FIRST[0], "steps": "$1"}, 400, "steps is '$1'; expected a whole number"),
        ("registration", SECOND[0], {"moving": FIRST[0], "output": "dicom"}, 400, "output is 'dicom'; expected one of"),
        ("carry_label", SECOND[0], {"moving": FIRST[0], "output": "warped"}, 400, "expected one of label"),
        ("carry_label", FIRST[0], {"moving": SECOND[0]}, 404, "has no label 'final' (it has: none)"),
        (
            "carry_label",
            FIRST[0],
            {"label": "maps"},
            400,
            "the weights of this server have no map networks; give a tag",
        ),
        ("registration", SECOND[0], {"moving": FIRST[0], "label": "../x"}, 404, "has no label '../x' (it has: final)"),
        ("registration", SECOND[0], {"moving": FIRST[0], "save_label": True}, 400, "save_label goes with the output"),
        ("registration", SECOND[0], {"moving": FIRST[0], "session": {"name": "../../x"}}, 404, "the session is over"),
        ("nothing", SECOND[0], {"moving": FIRST[0]}, 404, "no model 'nothing'; expected registration, carry_label"),
    ],
)
def test_mistakes_of_a_client_are_answered_in_one_line(server, model, image, params, status, message):
    response = server.infer(model, image, "json", params)
    assert response.status_code == status
    assert message in response.json()["detail"]
    assert "\n" not in response.json()["detail"]


def test_slicer_gets_the_message(server, tmp_path):
    client = MONAILabelClient(server.url, str(tmp_path))
    with pytest.raises(MONAILabelClientException) as raised:
        client.infer("carry_label", FIRST[0], {"moving": SECOND[0], **SLICER})
    assert "has no label 'final'" in raised.value.msg


def test_parameters_that_are_no_json_and_an_unknown_strategy(server):
    url = f"{server.url}/infer/registration?image={SECOND[0]}"
    response = requests.post(url, files={"params": (None, "{moving")}, timeout=600)
    assert response.status_code == 400
    assert "params is not JSON" in response.json()["detail"]
    response = requests.post(f"{server.url}/activelearning/random", json={}, timeout=600)
    assert response.status_code == 404
    assert "expected largest_loss" in response.json()["detail"]


def test_no_id_leads_out_of_the_datastore_and_no_request_to_the_weights(server, tmp_path):
    start = server.home.parent / "start.pt"
    before = digest(start)
    outside = server.home.parent / "outside.nii.gz"
    for method, path in (
        ("put", "datastore/?image=../outside"),
        ("put", f"datastore/label?image={FIRST[0]}&tag=../.."),
        ("put", "datastore/label?image=nothing"),
        ("delete", "datastore/?id=../start"),
        ("get", "datastore/image?image=../start"),
        ("put", "model/registration"),
        ("get", "model/registration"),
        ("delete", "model/registration"),
    ):
        files = {name: ("x.nii.gz", b"x") for name in ("file", "label")} if method == "put" else None
        response = requests.request(method, f"{server.url}/{path}", files=files, timeout=600)
        assert response.status_code >= 400, path
        assert "\n" not in response.json()["detail"], path
    assert not outside.exists()
    assert digest(start) == before


def test_pages_of_other_sites_cannot_read(server):
    response = requests.get(f"{server.url}/info/", headers={"Origin": "http://example.org"}, timeout=600)
    assert "access-control-allow-origin" not in response.headers


def test_a_damaged_image_is_named_by_its_id(server, tmp_path):
    damaged = tmp_path / "x.nii.gz"
    damaged.write_bytes(b"no image")
    with damaged.open("rb") as file:
        requests.put(f"{server.url}/datastore/?image=damaged", files={"file": ("x.nii.gz", file)}, timeout=600)
    response = server.infer("registration", SECOND[0], "json", {"moving": "damaged"})
    requests.delete(f"{server.url}/datastore/?id=damaged", timeout=600)
    assert response.status_code == 422
    assert "moving image 'damaged'" in response.json()["detail"]
    assert str(server.studies) not in response.json()["detail"]


def test_requests_at_once_do_not_mix_and_leave_the_weights_alone(server):
    before = digest(server.home.parent / "start.pt")
    wanted = [(SECOND[0], FIRST[0]), (SECOND[1], FIRST[3])]

    def answer(pair):
        params = {"moving": pair[1], "result_extension": ".nrrd"}
        return server.infer("registration", pair[0], "image", params).content

    alone = [answer(pair) for pair in wanted]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(answer, wanted * 4))
    assert together == alone * 4
    assert alone[0] != alone[1]
    assert digest(server.home.parent / "start.pt") == before


def test_an_image_that_slicer_uploads_is_the_fixed_one(server, tmp_path):
    client = MONAILabelClient(server.url, str(tmp_path))
    session = client.create_session(str(server.studies / f"{SECOND[0]}.nii.gz"))["session_id"]
    file, answer = client.infer("registration", "local", {"moving": FIRST[1], **SLICER}, session_id=session)
    np.testing.assert_array_equal(read(file)[0], server.expected(SECOND[0], FIRST[1]).warped)
    assert answer["pair"]["moving"] == FIRST[1]
    assert (server.home / "sessions" / session).is_dir()
    assert "local" not in (server.home / "model/registration/losses.json").read_text()


def test_a_label_that_a_person_saves_is_carried_with_its_names(server, tmp_path):
    client = MONAILabelClient(server.url, str(tmp_path))
    names = [{"name": "gland", "idx": 1}, {"name": "apex", "idx": 3}]
    image = nib.load(server.studies / f"{SECOND[3]}.nii.gz")
    label = np.where(image.get_fdata() > 60, 3, 1).astype(np.uint8)
    nib.save(nib.Nifti1Image(label, image.affine), tmp_path / "label.nii.gz")
    client.save_label(SECOND[3], str(tmp_path / "label.nii.gz"), "checked", {"label_info": names})
    _, answer = client.infer("carry_label", SECOND[2], {"moving": SECOND[3], "label": "checked", **SLICER})
    assert answer["label_names"] == {"gland": 1, "apex": 3}


def test_labels_that_were_numbered_otherwise_are_not_compared(server, tmp_path):
    """3D Slicer numbers the segments of every image anew, by their order."""
    client = MONAILabelClient(server.url, str(tmp_path))
    for name, order in ((SECOND[3], ("gland", "apex")), (SECOND[2], ("apex", "gland"))):
        names = [{"name": each, "idx": number} for number, each in enumerate(order, start=1)]
        image = nib.load(server.studies / f"{name}.nii.gz")
        label = (image.get_fdata() > 60).astype(np.uint8) + 1
        nib.save(nib.Nifti1Image(label, image.affine), tmp_path / "label.nii.gz")
        client.save_label(name, str(tmp_path / "label.nii.gz"), "ordered", {"label_info": names})
    answer = server.registered(SECOND[2], SECOND[3], label="ordered")
    assert answer["dsc"] == {}
    assert answer["reasons"][-1] == "the labels of the two images are not compared: 'apex' is 1 and 2"


def test_the_strategy_proposes_the_worst_pair_which_needs_no_moving_image_then(server):
    url = f"{server.url}/activelearning/largest_loss"
    # At most four pairs a time: those of the same patient first.
    sample = requests.post(url, json={"client_id": "user-xyz"}, timeout=600).json()
    losses = {
        fixed: min(server.expected(fixed, moving).metrics["loss"]) for fixed, moving in zip(SECOND, FIRST, strict=True)
    }
    recorded = json.loads((server.home / "model/registration/losses.json").read_text())["losses"]
    found = {(fixed, moving): loss for fixed, moving, loss in recorded}
    assert {fixed: found[fixed, moving] for fixed, moving in zip(SECOND, FIRST, strict=True)} == losses
    waiting = {pair: loss for pair, loss in found.items() if pair[0] in SECOND}
    assert waiting[sample["id"], sample["moving"]] == max(waiting.values()) == sample["loss"]
    again = requests.post(url, json={}, timeout=600).json()
    assert again["id"] != sample["id"]
    answer = server.infer("registration", sample["id"], "json", {}).json()
    assert answer["pair"] == {"fixed": sample["id"], "moving": sample["moving"]}


def test_training_is_stopped_goes_on_and_is_served_only_if_better(server):
    start = digest(server.home.parent / "start.pt")
    assert server.train(iterations=60).status_code == 200
    _, stats = server.wait_for(lambda task, stats: stats.get("epoch", 0) >= 1)
    assert stats["total_epochs"] == 3
    assert np.isfinite(stats["validation"]["val_loss"])
    stopped = requests.delete(f"{server.url}/train/", timeout=600).json()
    assert stopped["status"] == "STOPPED"
    assert "published" not in server.info()["train_stats"]["registration"]
    assert server.train(iterations=60).status_code == 200
    task, stats = server.wait_for(lambda task, stats: task["status"] not in ("SUBMITTED", "RUNNING"))
    assert task["status"] == "DONE", task
    assert stats["epoch"] == 3
    (run,) = (server.home / "model/registration/trainings").iterdir()
    assert digest(run / "start.pt") == start
    published = server.home / "model/registration/model.pt"
    scores = stats["scores"]
    assert stats["published"] == published.exists() == (scores["new"]["loss"] < scores["old"]["loss"])
    if stats["published"]:
        assert digest(published) == digest(run / "model.pt")
        assert digest(published.with_name("model_previous.pt")) == start
        server.settings["weights"] = str(published)
    answer = server.registered(SECOND[0], FIRST[0])
    assert answer["losses"] == server.expected(SECOND[0], FIRST[0]).metrics["loss"]


def test_documented_requests_are_answered(server, tmp_path):
    page = (ROOT / "docs/monai_label.md").read_text()
    commands = [line for text in re.findall(r"```curl\n(.*?)```", page, re.DOTALL) for line in text.splitlines()]
    assert len(commands) == 6
    for command in commands:
        for old, new in (("http://127.0.0.1:8000", server.url), ("P00_1", SECOND[0]), ("P00_0", FIRST[0])):
            command = command.replace(old, new)
        subprocess.run(command, shell=True, cwd=tmp_path, check=True, capture_output=True, timeout=600)
        if "/train/registration" in command:
            server.wait_for(lambda task, stats: task["status"] == "RUNNING")
    assert read(tmp_path / "warped.nrrd")[0].dtype == np.float32
    assert read(tmp_path / "label.nii.gz")[0].dtype == np.uint8


def test_what_training_cannot_do_is_in_its_status(server):
    assert server.train(iterations="$exit()").status_code == 200
    task, _ = server.wait_for(lambda task, stats: task["status"] not in ("SUBMITTED", "RUNNING"))
    assert task["status"] == "ERROR"
    assert task["details"][-1] == "error: iterations is '$exit()'; expected a whole number from 1 to 100000"


def test_a_training_that_nobody_can_do_leaves_the_server_running(server):
    url = f"{server.url}/train/"
    for model, params, status, message in (
        ("registration", {"iterations": 0}, 400, "iterations is 0; expected a whole number"),
        ("nothing", {}, 404, "no training of 'nothing'; expected registration"),
    ):
        # The client waits: the server itself trains.
        response = requests.post(f"{url}{model}?run_sync=true", json=params, timeout=600)
        assert response.status_code == status
        assert response.json()["detail"].startswith(message)
    assert server.info()["name"] == "Registration"


def test_no_answer_holds_a_path_of_the_server(server):
    def ended(task, _):
        return task["status"] not in ("SUBMITTED", "RUNNING")

    # Structures 0, 1, 2 of the overlay are channels, the labels are maps.
    assert server.train(iterations=2, labels=True).status_code == 200
    task, _ = server.wait_for(ended)
    assert task["status"] == "ERROR"
    assert "integer maps with the values 1, 3 on the background 0; name some of these" in task["details"][-1]
    assert server.train(iterations=2).status_code == 200
    task, stats = server.wait_for(ended)
    assert task["status"] == "DONE", task
    assert (stats["total_epochs"], stats["total_iterations"]) == (1, 2)
    assert any(line.endswith("training: 2 meta-updates, in epochs of 2") for line in task["details"])
    requests.post(f"{server.url}/scoring/nothing", json={}, timeout=600)
    for _ in range(3000):
        scoring = requests.get(f"{server.url}/scoring/", timeout=600).json()
        if ended(scoring, None):
            break
        time.sleep(0.2)
    assert any("Initializing App from: home; studies: studies_" in line for line in scoring["details"])
    with (server.studies / f"{FIRST[0]}.nii.gz").open("rb") as file:
        session = requests.put(f"{server.url}/session/", files={"files": ("a.nii.gz", file)}, timeout=600)
    assert session.json()["session_info"]["image"] == "a.nii.gz"
    sample = requests.post(f"{server.url}/activelearning/largest_loss", json={}, timeout=600)
    # 3D Slicer opens it if there is such a file, and fetches the image otherwise.
    assert sample.json()["path"] == ""
    places = ["info/", "train/?all=true", "scoring/", f"session/{session.json()['session_id']}"]
    places += [f"datastore/?output={kind}" for kind in ("all", "train", "stats")]
    places += [f"datastore/image/info?image={FIRST[0]}", f"datastore/label/info?label={FIRST[0]}&tag=final"]
    answers = [session, sample, *(requests.get(f"{server.url}/{place}", timeout=600) for place in places)]
    listed = {"image": f"{FIRST[0]}.nii.gz", "label": f"{FIRST[0]}.nii.gz"}
    assert listed in requests.get(f"{server.url}/datastore/?output=train", timeout=600).json()
    outside = [server.home.parents[1], Path(sys.prefix), ROOT]
    for answer in answers:
        assert answer.status_code == 200, answer.url
        assert not [folder for folder in outside if str(folder) in answer.text], answer.text
    requests.delete(session.url + session.json()["session_id"], timeout=600)
    assert server.info()["labels"][:2] == ["gland", "urethra"]


def test_the_logs_name_no_image_and_nothing_is_left_behind(server):
    logs = [server.home.parent / "log.txt", *(server.home / "logs").iterdir()]
    text = "".join(log.read_text() for log in logs)
    assert "warped" in text
    assert not [patient for patient in PATIENTS if patient in text]


def test_a_request_that_is_refused_after_the_registration_leaves_no_file(server):
    results = Path(tempfile.gettempdir())
    before = set(results.glob("registration-*/*"))
    response = server.infer("registration", SECOND[0], "json", {"moving": FIRST[0], "save_label": True})
    assert response.status_code == 400
    assert "save_label goes with the output 'label'" in response.json()["detail"]
    assert set(results.glob("registration-*/*")) == before


def test_what_clients_upload_and_delete_leaves_the_users_files_as_they_are(server, tmp_path):
    before = {path.name: digest(path) for path in server.studies.glob("*.nii.gz")}
    upload = tmp_path / "x.nii.gz"
    shutil.copy(server.studies / f"{SECOND[1]}.nii.gz", upload)
    address = f"{server.url}/datastore/"
    with upload.open("rb") as file:
        sent = requests.put(f"{address}?image={SECOND[0]}", files={"file": (upload.name, file)}, timeout=600)
    assert sent.status_code == 200
    assert requests.get(f"{address}image?image={SECOND[0]}", timeout=600).content == upload.read_bytes()
    for image in (SECOND[0], FIRST[0]):
        assert requests.delete(f"{address}?id={image}", timeout=600).status_code == 200
        for _ in range(100):  # MONAI Label sees that a file has gone a moment later
            if image not in requests.get(f"{address}?output=all", timeout=600).json()["objects"]:
                break
            time.sleep(0.1)
        else:
            raise AssertionError(f"{image} is still there")
    assert {path.name: digest(path) for path in server.studies.glob("*.nii.gz")} == before
