"""The MONAI Deploy application; a whole run needs the SDK: bundle/apps/deploy/requirements.txt."""

import json
import logging
import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import yaml
from dicom_toys import oblique_affine, write_series
from pydicom.uid import generate_uid
from workflow_fixtures import volume

from bundle import register
from bundle.apps.deploy import __main__ as command
from bundle.apps.deploy.inputs import has_nifti, listed, nifti_pair, series_in, series_pair
from bundle.apps.deploy.results import check_output, write_results
from bundle.apps.deploy.settings import DEFAULT, read_settings
from bundle.data import SIDES
from bundle.dicom import read_series
from bundle.system.configurations import find_configurations

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "monai_deploy.md"
NAME, ID = "Secretname^Jane", "SECRET4711"
TINY = {"pixdim": 6.0, "map_pixdim": 6.0, "downsampling": 1}
FIXED = oblique_affine((4.0, 4.6, 5.0))
MOVING = oblique_affine((4.4, 3.8, 4.8), (-35.0, 20.0, 64.0), (5.0, 10.0, -8.0))
needs_sdk = pytest.mark.skipif(find_spec("monai.deploy") is None, reason="needs bundle/apps/deploy/requirements.txt")


def save(path, voxels, affine):
    image = nib.Nifti1Image(voxels, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    nib.save(image, path)


def write_study(folder, **changes):
    """Ultrasound and MR of one patient, in one folder and named after the patient; returned, where they lie apart."""
    apart = folder.with_name(f"{folder.name}_apart")
    patient = {"PatientName": NAME, "PatientID": ID, "study": "1.2.826.0.1.3680043.8.498.1"}
    shapes, affines, modalities = ((20, 18, 15), (17, 20, 16)), (FIXED, MOVING), ("US", "MR")
    folder.mkdir()
    for number, side in enumerate(SIDES):
        image, _ = volume(number, shapes[number])
        tags = {**patient, "Modality": modalities[number], "SeriesNumber": number + 3, **changes.get(side, {})}
        for file in write_series(apart / side, np.rint(10 * image).astype(np.uint16), affines[number], **tags):
            (folder / f"Secretname_Jane_{side}_{file.name}").hardlink_to(file)
    save(folder / "moving_label.nii.gz", volume(1, shapes[1])[1], MOVING)
    return apart


def uids(folder):
    """SeriesInstanceUID by modality."""
    return {one.modality: one.uid for one in series_in(folder)}


def test_own_settings_select_mr_to_ultrasound_with_its_weights():
    settings = read_settings()
    assert settings.steps == 5
    assert settings.config_file == ("inference.yaml", "mr_trus.yaml")
    assert settings.weights_in(ROOT / "models") == ROOT / "models" / "mr_trus.pt"
    assert yaml.safe_load(settings.rules("fixed")) == {
        "selections": [{"name": "fixed", "conditions": {"Modality": "^US$"}}]
    }


def test_weights_are_found_where_packagers_put_them(tmp_path):
    settings = read_settings()
    packed = tmp_path / "models" / "mr_trus" / "mr_trus.pt"
    packed.parent.mkdir(parents=True)
    packed.touch()
    assert settings.weights_in(tmp_path / "models") == packed
    assert settings.weights_in(packed) == packed
    with pytest.raises(FileNotFoundError, match=r"no mr_trus\.pt in the models folder .*; give the bundle's folder"):
        settings.weights_in(tmp_path)


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("series", {"fixed": {"Modality": "US"}}, "series has fixed, expected fixed, moving"),
        ("series", {"fixed": {"Modality": "("}, "moving": {"Modality": "MR"}}, "no regular expression"),
        ("series", {"fixed": {"Modality": ""}, "moving": {"Modality": "MR"}}, "Modality is '', expected a text"),
        (
            "series",
            {"fixed": {"SeriesNumber": 0}, "moving": {"Modality": "MR"}},
            "SeriesNumber is 0, expected a text",
        ),
        ("registration", {"config_file": "a", "weights": "/b", "steps": 5}, "weights is '/b', expected a file's name"),
        ("registration", {"config_file": "a", "weights": "", "steps": 5}, "weights is '', expected a file's name"),
        ("series", {"fixed": {}, "moving": {"Modality": "MR"}}, "no section fixed"),
        ("registration", {"steps": 5}, "registration has steps, expected config_file, weights, steps"),
        ("registration", {"config_file": "a", "weights": "b", "steps": True}, "steps is True, expected int"),
        ("registration", None, "no section registration"),
    ],
)
def test_configurations_that_are_not_as_expected(section, value, message, tmp_path, monkeypatch):
    file = tmp_path / "app.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(DEFAULT.read_text()), section: value}))
    monkeypatch.setenv("HOLOSCAN_CONFIG_PATH", str(file))
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        read_settings()
    assert str(file) in str(raised.value)
    assert "\n" not in str(raised.value)


def documented(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("text", documented("yaml"))
def test_documented_configurations_are_read(text, tmp_path):
    (tmp_path / "app.yaml").write_text(yaml.safe_dump({**yaml.safe_load(DEFAULT.read_text()), **yaml.safe_load(text)}))
    settings = read_settings(tmp_path / "app.yaml")
    assert settings.weights_in(ROOT / "models").is_file()
    assert len(find_configurations(settings.config_file)) == len(settings.config_file)


def test_documented_commands_of_make():
    """What they would do; to install is left to those who follow them."""
    command = ["make", "--dry-run", "--always-make", "deploy"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    by_hand = [line for line in "".join(documented("")).splitlines() if ".venv-deploy/bin/pip" in line]
    installed = re.findall(r"install --quiet --disable-pip-version-check (.*)", made)
    assert [line.split("install ")[1] for line in by_hand] == [line.replace("--editable", "-e") for line in installed]
    (packed,) = re.findall(r"monai-deploy package .* models", made)
    assert packed in PAGE.read_text()


def test_configuration_that_cannot_be_read(tmp_path):
    (tmp_path / "app.yaml").write_text("series: [")
    with pytest.raises(ValueError, match=r"app\.yaml cannot be read"):
        read_settings(tmp_path / "app.yaml")


def test_kind_of_input(tmp_path):
    with pytest.raises(ValueError, match="no image in .*: expected DICOM series, or fixed.nii.gz and moving.nii.gz"):
        has_nifti(tmp_path)
    (tmp_path / "fixed.nii.gz").touch()
    with pytest.raises(ValueError, match=r"fixed\.nii\.gz is in .*, and moving\.nii\.gz is not"):
        has_nifti(tmp_path)
    (tmp_path / "moving.nii.gz").touch()
    (tmp_path / "fixed_label.nii.gz").touch()
    assert has_nifti(tmp_path)
    pair = nifti_pair(tmp_path)
    assert (pair.fixed_label, pair.moving_label) == (tmp_path / "fixed_label.nii.gz", None)
    assert not pair.is_dicom
    write_study(tmp_path / "in")
    assert not has_nifti(tmp_path / "in")


def test_series_get_folders_of_their_own(tmp_path):
    apart = write_study(tmp_path / "in")
    (tmp_path / "private").mkdir()
    found = uids(tmp_path / "in")
    pair = series_pair(tmp_path / "in", {"fixed": [found["US"]], "moving": [found["MR"]]}, tmp_path / "private")
    assert pair.is_dicom
    assert pair.moving_label == tmp_path / "in" / "moving_label.nii.gz"
    for side, affine in zip(SIDES, (FIXED, MOVING), strict=True):
        assert read_series(getattr(pair, side)).uid == read_series(apart / side).uid
        np.testing.assert_allclose(read_series(getattr(pair, side)).affine, affine, atol=1e-6)
    assert not [path for path in (tmp_path / "private").rglob("*") if "secret" in path.name.lower()]


def test_the_loader_gets_every_file_once_and_whole(tmp_path):
    """Links that lead round, slices without preamble, a study that is not named: it reads none of them itself."""
    apart = write_study(tmp_path / "in")
    for side in SIDES:
        (tmp_path / "in" / side).symlink_to(apart / side)
    (tmp_path / "in" / "round").symlink_to(tmp_path / "in")
    bare, unnamed = sorted((apart / "fixed").iterdir())[:2]
    content = bare.read_bytes()
    bare.write_bytes(content[144 + int.from_bytes(content[140:144], "little") :])
    header = pydicom.dcmread(unnamed)
    del header.StudyInstanceUID
    header.save_as(unnamed)
    (tmp_path / "private").mkdir()
    files = sorted(listed(tmp_path / "in", tmp_path / "private").iterdir())
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
    assert len({header.SOPInstanceUID for header in headers}) == len(files) == 15 + 16
    assert {header.Modality: header.SeriesInstanceUID for header in headers} == uids(tmp_path / "in")
    assert all(header.StudyInstanceUID for header in headers)


def test_two_echoes_in_a_series_are_refused(tmp_path):
    """MONAI Deploy's loader drops one slice of each place; the bundle is to see both, and refuse."""
    apart = write_study(tmp_path / "in")
    (tmp_path / "private").mkdir()
    slices = sorted((apart / "fixed").iterdir())
    for file in slices:
        header = pydicom.dcmread(file)
        header.EchoTime = 80.0
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        header.save_as(tmp_path / "in" / f"second_echo_{file.name}")
    found = uids(tmp_path / "in")
    with pytest.raises(ValueError, match=r"^fixed, series 3 US .*: 2 volumes, expected one"):
        series_pair(tmp_path / "in", {"fixed": [found["US"]], "moving": [found["MR"]]}, tmp_path / "private")
    assert len(list((tmp_path / "private" / "fixed").iterdir())) == 2 * len(slices)


@pytest.mark.parametrize(
    ("fixed", "moving", "message"),
    [
        ("", "MR", r"no series fits fixed; found: 3 US fixed (20 x 18 x 15), 4 MR moving (17 x 20 x 16); change"),
        ("US MR", "MR", "2 series fit fixed: 3 US fixed (20 x 18 x 15), 4 MR moving (17 x 20 x 16); expected one"),
        ("US", "US", "the same series fits fixed and moving: 3 US fixed (20 x 18 x 15); make the conditions"),
    ],
)
def test_no_series_or_several(fixed, moving, message, tmp_path):
    write_study(tmp_path / "in")
    (tmp_path / "private").mkdir()
    found = uids(tmp_path / "in")
    chosen = {"fixed": [found[one] for one in fixed.split()], "moving": [found[one] for one in moving.split()]}
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        series_pair(tmp_path / "in", chosen, tmp_path / "private")
    assert "secret" not in str(raised.value).lower()
    assert not list((tmp_path / "private").iterdir())


def test_localizers_and_raw_data_that_fit_do_not_count(tmp_path):
    write_study(tmp_path / "in")
    (tmp_path / "private").mkdir()
    found = uids(tmp_path / "in")
    kind = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_series(
        tmp_path / "in/scout", np.zeros((4, 5, 3), np.uint16), FIXED, ImageType=kind, SeriesInstanceUID="1.2.3"
    )
    chosen = {"fixed": [found["US"]], "moving": [found["MR"], "1.2.3", "1.2.4"]}
    pair = series_pair(tmp_path / "in", chosen, tmp_path / "private")
    assert len(list(pair.moving.iterdir())) == 16


def test_two_patients_are_refused_before_anything_is_registered(tmp_path):
    write_study(tmp_path / "in", moving={"PatientID": "another"})
    (tmp_path / "private").mkdir()
    found = uids(tmp_path / "in")
    with pytest.raises(ValueError, match="different PatientIDs, expected one patient") as raised:
        series_pair(tmp_path / "in", {"fixed": [found["US"]], "moving": [found["MR"]]}, tmp_path / "private")
    assert "another" not in str(raised.value)


def test_damaged_files_are_refused_without_their_names(tmp_path):
    write_study(tmp_path / "in")
    (tmp_path / "in" / "Secretname_Jane.dcm").write_bytes(b"no dicom")
    with pytest.raises(ValueError, match=r"1 of the DICOM files in .* cannot be read") as raised:
        has_nifti(tmp_path / "in")
    assert "Secretname" not in str(raised.value)


class Result:
    """Stands in for a registration."""

    def save(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "displacement.nii.gz").touch()
        return folder

    def save_dicom(self, folder):
        raise ValueError("two patients")


def test_results_are_there_as_a_whole_or_not_at_all(tmp_path):
    with pytest.raises(ValueError, match="two patients"):
        write_results(Result(), tmp_path, dicom=True)
    assert not list(tmp_path.iterdir())
    written = write_results(Result(), tmp_path, dicom=False)
    assert written == tmp_path / "registration"
    assert [path.name for path in tmp_path.rglob("*.gz")] == ["displacement.nii.gz"]
    with pytest.raises(FileExistsError, match="has the results of another run; give an empty folder"):
        check_output(tmp_path)


def test_log_leaves_out_what_names_patients():
    def record(path):
        return logging.LogRecord("root", logging.WARNING, path, 1, f"Ignored /in/{NAME}", None, None)

    assert command.names_no_patient(record("/env/bundle/apps/deploy/app.py"))
    assert not command.names_no_patient(record("/env/monai/deploy/operators/dicom_data_loader_operator.py"))


def test_faults_are_placed_and_their_messages_kept_back(capsys):
    try:
        raise KeyError(NAME)
    except KeyError as error:
        command.report(KeyError, error, error.__traceback__)
    shown = capsys.readouterr().err
    assert "KeyError at" in shown
    assert "test_deploy_app.py" in shown
    assert NAME not in shown
    command.report(ValueError, ValueError("one\nline"), None)
    assert capsys.readouterr().err == "error: one line\n"


def test_without_the_sdk_one_line_says_so(monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    monkeypatch.setattr(command, "prepare", lambda: None)
    with pytest.raises(ImportError, match=r"MONAI Deploy is not installed; docs/monai_deploy\.md says how"):
        command.main()


def test_packed_versions_are_those_of_the_bundle():
    """Of the packages that both name, one version."""
    named = set(re.findall(r'^    "([\w-]+)', (ROOT / "pyproject.toml").read_text(), re.M))
    locked = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(), re.M))
    ours = {name: version for name, version in locked.items() if name in named}
    packed = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "bundle/apps/deploy/requirements.txt").read_text(), re.M))
    assert {"torch", "monai", "pydicom", "highdicom", "itk"} <= ours.keys() & packed.keys()
    assert {name: packed[name] for name in ours.keys() & packed.keys()} == {
        name: ours[name] for name in ours.keys() & packed.keys()
    }


class Run:
    """``python -m bundle.apps.deploy`` as a process of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.program = ["-m", "bundle.apps.deploy"]
        self.registration = {"config_file": ["inference.yaml", "mr_trus.yaml"], "weights": "mr_trus.pt", "steps": 5}
        self.temporary = folder / "tmp"
        self.temporary.mkdir()

    def __call__(self, *arguments, **environment):
        overlay = self.folder / "tiny.yaml"
        overlay.write_text(yaml.safe_dump(TINY))
        self.registration["config_file"].append(str(overlay))
        config = self.folder / "app.yaml"
        content = {**yaml.safe_load(DEFAULT.read_text()), "registration": self.registration}
        config.write_text(yaml.safe_dump(content))
        known = {"PYTHONPATH": str(ROOT), "TMPDIR": str(self.temporary), "HOLOSCAN_CONFIG_PATH": str(config)}
        return subprocess.run(
            [sys.executable, *self.program, *map(str, arguments)],
            cwd=self.folder,
            env={**os.environ, **known, **environment},
            capture_output=True,
            text=True,
        )

    def direct(self, fixed, moving, label):
        return register(
            fixed,
            moving,
            moving_label=label,
            config_file=self.registration["config_file"],
            weights=str(ROOT / "models" / self.registration["weights"]),
            steps=self.registration["steps"],
        )


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def voxels(path):
    return np.asarray(nib.load(path).dataobj)


@needs_sdk
def test_dicom_series_in_and_out(run, tmp_path):
    apart = write_study(tmp_path / "my_study")
    (tmp_path / "models").symlink_to(ROOT / "models")
    before = {path.name: path.read_bytes() for path in (tmp_path / "my_study").iterdir()}
    (line,) = re.findall(r"^\.venv-deploy/bin/python -m bundle\.apps\.deploy (.*)$", PAGE.read_text(), re.M)
    finished = run(*line.split())
    assert finished.returncode == 0, finished.stderr
    assert "stack size" not in finished.stderr  # Holoscan's advice, which the application follows
    out = tmp_path / "my_results" / "registration"
    assert finished.stdout == f"results: {out}\n"

    expected = run.direct(apart / "fixed", apart / "moving", tmp_path / "my_study" / "moving_label.nii.gz")
    assert np.abs(expected.displacement).max() > 1
    ras = voxels(out / "displacement.nii.gz").squeeze() * [-1, -1, 1]
    np.testing.assert_allclose(np.moveaxis(ras, -1, 0), expected.displacement, atol=1e-3)
    np.testing.assert_array_equal(voxels(out / "warped_image.nii.gz"), np.rint(expected.warped))

    warped = read_series(out / "dicom" / "warped")
    np.testing.assert_allclose(warped.affine, FIXED, atol=1e-4)
    assert warped.shape == (20, 18, 15)
    slices = [pydicom.dcmread(file) for file in warped.files]
    np.testing.assert_array_equal(
        np.stack([one.pixel_array.T for one in slices], axis=-1), voxels(out / "warped_image.nii.gz")
    )
    assert {one.FrameOfReferenceUID for one in slices} == {read_series(apart / "fixed").frame}
    assert {(one.Modality, one.PatientID) for one in slices} == {("MR", ID)}
    segmentation = pydicom.dcmread(out / "dicom" / "segmentation.dcm")
    assert segmentation.pixel_array.sum() == (expected.warped_label > 0).sum() > 0
    assert pydicom.dcmread(out / "dicom" / "report.dcm").EncapsulatedDocument.startswith(b"%PDF")
    assert (out / "quality.html").is_file()

    said = finished.stdout + finished.stderr + " ".join(str(path) for path in (tmp_path / "my_results").rglob("*"))
    assert "secret" not in said.lower()
    assert not list(run.temporary.rglob("*.dcm"))
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "my_study").iterdir()}


@needs_sdk
def test_nifti_pair_by_the_environment(run, tmp_path):
    run.registration = yaml.safe_load(next(text for text in documented("yaml") if "weights" in text))["registration"]
    (tmp_path / "in").mkdir()
    image, label = volume(1, (17, 20, 16))
    save(tmp_path / "in" / "fixed.nii.gz", volume(0, (20, 18, 15))[0], FIXED)
    save(tmp_path / "in" / "moving.nii.gz", image, MOVING)
    save(tmp_path / "in" / "moving_label.nii.gz", label, MOVING)
    (tmp_path / "out").mkdir()
    folders = {"INPUT": tmp_path / "in", "OUTPUT": tmp_path / "out", "MODEL": ROOT / "models" / "model.pt"}
    finished = run(**{f"HOLOSCAN_{name}_PATH": str(path) for name, path in folders.items()})
    assert finished.returncode == 0, finished.stderr
    out = tmp_path / "out" / "registration"
    expected = run.direct(*(tmp_path / "in" / f"{name}.nii.gz" for name in ("fixed", "moving", "moving_label")))
    np.testing.assert_allclose(voxels(out / "warped_image.nii.gz"), expected.warped, atol=1e-3)
    np.testing.assert_array_equal(voxels(out / "warped_label.nii.gz"), expected.warped_label[0])
    np.testing.assert_allclose(nib.load(out / "warped_image.nii.gz").affine, FIXED, atol=1e-4)
    assert not (out / "dicom").exists()


@needs_sdk
@pytest.mark.parametrize(
    ("conditions", "fitting"),
    [
        ({"SeriesDescription": "trus.*AFTER"}, [3]),
        ({"SeriesDescription": "TRUS"}, [3, 4]),
        ({"Modality": "^US$", "SeriesDescription": "before"}, [4]),
        ({"SeriesNumber": 3}, [3]),
        ({"SeriesNumber": [2, 4]}, [3, 4]),
        ({"SeriesNumber": [3, ">"]}, [4, 5]),
        ({"ImageType": ["PRIMARY", "!LOCALIZER"]}, [3, 4]),
    ],
)
def test_rules_choose_what_the_page_says(conditions, fitting, tmp_path):
    from monai.deploy.core import Fragment
    from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
    from monai.deploy.operators.dicom_series_selector_operator import DICOMSeriesSelectorOperator

    descriptions = ("TRUS 3D after biopsy", "TRUS 3D before biopsy", "scout")
    for number, text in enumerate(descriptions, start=3):
        kind = ["ORIGINAL", "PRIMARY", "LOCALIZER" if text == "scout" else "OTHER"]
        tags = {
            "SeriesNumber": number,
            "SeriesDescription": text,
            "Modality": "US",
            "ImageType": kind,
            "study": "1.2.3",
        }
        write_series(tmp_path / str(number), np.zeros((4, 5, 2), np.uint16), FIXED, **tags)
    studies = DICOMDataLoaderOperator(Fragment(), name="loader").load_data_to_studies(tmp_path)
    rules = replace(read_settings(), series={"fixed": conditions}).rules("fixed")
    chosen = DICOMSeriesSelectorOperator(Fragment(), rules=rules, name="selector").filter(
        json.loads(rules), studies, True
    )
    assert sorted(one.series.SeriesNumber for study in chosen for one in study.selected_series) == fitting


@needs_sdk
@pytest.mark.parametrize("condition", [{"SeriesDescription": ["!scout"]}, {"StudyID": 5}, {"PatientName": "x"}])
def test_conditions_that_do_not_suit_the_files_are_one_line(condition, tmp_path):
    from monai.deploy.core import Fragment
    from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator

    from bundle.apps.deploy.operators import SideSelectorOperator

    write_series(tmp_path / "s", np.zeros((4, 5, 2), np.uint16), FIXED, StudyID="5")
    studies = DICOMDataLoaderOperator(Fragment(), name="loader").load_data_to_studies(tmp_path)
    settings = replace(read_settings(), series={"fixed": condition})
    selector = SideSelectorOperator(Fragment(), side="fixed", settings=settings, name="selector")
    with pytest.raises(ValueError, match=r"^series, fixed: a condition does not suit what the files have") as raised:
        selector.filter(json.loads(settings.rules("fixed")), studies, True)
    assert "Phantom" not in str(raised.value)


@needs_sdk
def test_packaged_folder_runs_as_a_container_runs_it(run, tmp_path):
    """With its models in a folder each, in the folder's own code, and refusing what it refuses elsewhere."""
    for name in ("bundle", "configs", "Makefile"):
        (tmp_path / name).symlink_to(ROOT / name)
    subprocess.run(["make", "--silent", "package"], cwd=tmp_path, check=True)
    app = (tmp_path / "runs" / "deploy").rename(tmp_path / "app")
    assert not [path for path in app.rglob("*") if path.is_symlink()]
    (tmp_path / "in").mkdir()
    (tmp_path / "models" / "models").mkdir(parents=True)
    for weights in (ROOT / "models").glob("mr_trus*.pt"):
        (tmp_path / "models" / "models" / weights.name).symlink_to(weights)
    save(tmp_path / "in" / "fixed.nii.gz", volume(0, (20, 18, 15))[0], FIXED)
    save(tmp_path / "in" / "moving.nii.gz", volume(1, (17, 20, 16))[0], MOVING)
    for name in ("bundle", "configs"):
        (tmp_path / name).unlink()
    run.program = [str(app)]
    finished = run("-i", "in", "-o", "out", "-m", "models", PYTHONPATH="")
    assert finished.returncode == 0, finished.stderr
    assert nib.load(tmp_path / "out" / "registration" / "displacement.nii.gz").shape[:3] == (20, 18, 15)


@needs_sdk
def test_error_is_one_line_and_nothing_is_written(run, tmp_path):
    write_study(tmp_path / "in", moving={"Modality": "CT"})
    finished = run("-i", "in", "-o", "out", "-m", ROOT / "models", "-l", "DEBUG")
    assert finished.returncode == 1
    assert finished.stdout == ""
    message = "no series fits moving; found: 3 US fixed (20 x 18 x 15), 4 CT moving (17 x 20 x 16)"
    (line,) = [line for line in finished.stderr.splitlines() if line.startswith("error")]
    assert line == f"error: {message}; change the conditions under series, moving"
    assert "secret" not in finished.stderr.lower()
    assert not list((tmp_path / "out").iterdir())
    assert not list(run.temporary.rglob("*.dcm"))
