"""Simulated TRUS data: known motion, anatomical orientation, geometry on disk, splits."""

import csv
import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from bundle.geometry import centroids, fixed_to_moving, warp_native
from bundle.simulation import dataset as simulation
from bundle.simulation import known_displacement, simulate_dataset, simulate_scan, simulate_slices, write_example
from bundle.simulation.anatomy import PROBE_AXIS, STRUCTURES, simulate_patient
from bundle.simulation.scan import Probe

PATIENTS = range(6)


@pytest.fixture(scope="module")
def scans():
    return {(patient, scan): simulate_scan(patient, scan) for patient in PATIENTS for scan in (0, 1)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return simulate_dataset(tmp_path_factory.mktemp("simulated") / "data", patients=6, scans=2, seed=3)


def label_tensor(scan):
    return torch.as_tensor(scan.labels).movedim(-1, 0).float()


def world(scan):
    voxels = np.stack(np.meshgrid(*map(np.arange, scan.image.shape), indexing="ij"))
    return np.tensordot(scan.affine[:3, :3], voxels, axes=1) + scan.affine[:3, 3].reshape(3, 1, 1, 1)


def warped(scans, patient, label=False, known=True):
    fixed, moving = scans[patient, 0], scans[patient, 1]
    truth = torch.as_tensor(known_displacement(fixed, moving)) * known
    source = label_tensor(moving)[:1] if label else torch.as_tensor(moving.image, dtype=torch.float32)[None]
    return warp_native(source, moving.affine, truth, fixed.affine)[0].numpy()


def dice(a, b):
    return 2 * np.sum(a & b) / (np.sum(a) + np.sum(b))


@pytest.mark.parametrize("patient", PATIENTS)
def test_known_displacement_maps_every_landmark(scans, patient):
    fixed, moving = scans[patient, 0], scans[patient, 1]
    fixed_points = centroids(label_tensor(fixed), fixed.affine)[1:]
    moving_points = centroids(label_tensor(moving), moving.affine)[1:]
    mapped = fixed_points + known_displacement(fixed, moving, fixed_points.T).T
    # A ball of about 14 voxels has its centroid to about a third of a voxel, and there are two of them.
    assert np.linalg.norm(mapped - moving_points, axis=1).max() < 0.8
    assert np.linalg.norm(moving_points - fixed_points, axis=1).mean() > 0.8


def test_known_displacement_has_an_exact_inverse(scans):
    fixed, moving = scans[0, 0], scans[0, 1]
    points = np.random.default_rng(0).uniform(-25, 25, size=(3, 50))
    there = points + known_displacement(fixed, moving, points)
    back = there + known_displacement(moving, fixed, there)
    assert np.abs(there - points).max() > 3
    np.testing.assert_allclose(back, points, atol=1e-6)


def test_probe_tissue_moves_rigidly_and_far_tissue_by_the_far_fraction():
    probe = Probe(rotation=np.eye(3), translation=np.array([1.0, 4.0, -2.0]))
    at_probe, far = PROBE_AXIS[:, None], np.array([[0.0], [300.0], [0.0]])
    np.testing.assert_allclose(probe.displacement(at_probe)[:, 0], [-1, -4, 2], atol=1e-12)
    np.testing.assert_allclose(probe.displacement(far)[:, 0], [-0.3, -1.2, 0.6], atol=1e-12)
    # The tissue moves against the pull-back.
    np.testing.assert_allclose(probe.to_world(far)[:, 0], [0.3, 301.2, -0.6], atol=1e-6)


def test_known_displacement_aligns_glands_and_images(scans):
    for patient in PATIENTS:
        fixed = scans[patient, 0]
        gland = fixed.labels[..., 0] > 0
        before = dice(gland, warped(scans, patient, label=True, known=False) > 0.5)
        assert 0.7 < before < 0.97
        assert dice(gland, warped(scans, patient, label=True) > 0.5) > 0.97

        target = gaussian_filter(fixed.image.astype(float), 1.0)
        errors = [np.mean((target - gaussian_filter(warped(scans, patient, known=k), 1.0)) ** 2) for k in (True, False)]
        assert errors[0] < errors[1]


def test_glands_of_different_patients_overlap_in_part(scans):
    overlaps = []
    for patient in PATIENTS:
        fixed, moving = scans[patient, 0], scans[(patient + 1) % len(PATIENTS), 0]
        still = torch.zeros(3, *fixed.image.shape)
        other = warp_native(label_tensor(moving)[:1], moving.affine, still, fixed.affine)[0].numpy() > 0.5
        overlaps.append(dice(fixed.labels[..., 0] > 0, other))
    assert 0.6 < np.mean(overlaps) < 0.8


def test_orientation_in_world_space(scans):
    for scan in scans.values():
        gland, apex, base, *inner = centroids(label_tensor(scan), scan.affine)
        assert apex[2] < gland[2] - 12
        assert base[2] > gland[2] + 12
        assert len(inner) == len(STRUCTURES) - 3
        # The probe, an empty cylinder, lies behind the gland.
        behind = np.linalg.norm((world(scan) - scan.probe.translation.reshape(3, 1, 1, 1))[:2].T - [0, -32], axis=-1).T
        assert gland[1] > -15
        assert scan.image[behind < 6].max(initial=0) == 0


def test_zero_outside_the_fan_and_tissue_inside(scans):
    for scan in scans.values():
        x, y, z = scan.probe.to_rest(world(scan)) - PROBE_AXIS.reshape(3, 1, 1, 1)
        radius, angle = np.hypot(x, y), np.degrees(np.arctan2(np.abs(x), y))
        outside = (radius < 9.99) | (radius > 64.01) | (angle > 72.01) | (np.abs(z) > 33.01)
        assert 0.05 < outside.mean() < 0.5
        assert scan.image[outside].max() == 0
        assert scan.image[~outside].mean() > 60


def test_structures_are_visible(scans):
    for scan in scans.values():
        smooth = gaussian_filter(scan.image.astype(float), 0.7)
        gland = scan.labels[..., 0] > 0
        anatomy = world(scan) + scan.probe.displacement(world(scan))
        patient = simulate_patient(scan.patient_seed)
        distance = patient.gland_distance(anatomy)
        around = (distance > 4) & (distance < 8) & (scan.image > 0) & (anatomy[2] < patient.centre[2])
        inside = gland & (distance < -3)
        assert smooth[around].mean() > 1.25 * smooth[inside].mean()
        assert smooth[np.abs(distance) < 1].mean() > 1.25 * smooth[inside].mean()
        calcification = smooth[scan.labels[..., 3] > 0].mean()
        assert calcification > 1.5 * smooth[inside].mean()


def test_landmark_balls_have_their_radius(scans):
    volume = 4 / 3 * np.pi * 2.0**3
    for scan in scans.values():
        sizes = scan.labels[..., 1:].sum(axis=(0, 1, 2)) * abs(np.linalg.det(scan.affine[:3, :3]))
        # A dozen voxels: the count is off by a few, and compression changes the volume by some 10 %.
        assert np.all((sizes > 0.6 * volume) & (sizes < 1.5 * volume))


def test_speckle_is_fresh_and_scans_are_deterministic(scans):
    again = simulate_scan(2, 1)
    for name in ("image", "labels", "affine"):
        np.testing.assert_array_equal(getattr(again, name), getattr(scans[2, 1], name))
    known = warped(scans, 2)
    inside = scans[2, 0].labels[..., 0] > 0
    correlation = np.corrcoef(known[inside], scans[2, 0].image[inside])[0, 1]
    assert 0.1 < correlation < 0.8
    assert not np.array_equal(simulate_patient(2).radii, simulate_patient(3).radii)


def test_affines_are_oblique_anisotropic_and_of_both_hands(scans):
    affines = [scan.affine for scan in scans.values()]
    for affine in affines:
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        directions = affine[:3, :3] / spacing
        angle = np.degrees(np.arccos((np.trace(directions * np.sign(np.diag(directions))) - 1) / 2))
        np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-6)
        assert 4.9 < angle < 15.1
        assert spacing.max() / spacing.min() > 1.2
        np.testing.assert_array_equal(affine, affine.astype(np.float32))
    assert {np.sign(np.linalg.det(affine)) for affine in affines} == {-1.0, 1.0}
    assert len({scan.image.shape for scan in scans.values()}) > 6


def test_dataset_files(dataset):
    images = sorted(path.name for path in (dataset / "images").iterdir())
    assert images == [f"P0{patient}_{scan}.nii.gz" for patient in range(6) for scan in (0, 1)]
    for name in images:
        image, label = nib.load(dataset / "images" / name), nib.load(dataset / "labels" / name)
        assert image.get_data_dtype() == label.get_data_dtype() == np.uint8
        assert label.shape == (*image.shape, len(STRUCTURES))
        assert set(np.unique(label.dataobj)) == {0, 1}
        np.testing.assert_array_equal(image.affine, label.affine)
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
    with (dataset / "patients.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[3] == {"image": "P01_1", "patient": "P01"}
    assert len(rows) == 12


def test_datalist_is_split_by_patient_and_complete(dataset):
    datalist = json.loads((dataset / "datalist.json").read_text())
    training = {item["patient"] for item in datalist["training"]}
    validation = {patient for pair in datalist["validation"] for patient in pair["patient"]}
    test = {patient for pair in datalist["test"] for patient in pair["patient"]}
    assert (training, validation, test) == ({"P00", "P01"}, {"P02", "P03"}, {"P04", "P05"})
    assert {len(pair["patient"]) for pair in datalist["validation"]} == {1, 2}
    assert len(datalist["training"]) == 4

    pairs = {pair["pair_id"]: pair for pair in datalist["test"]}
    assert len(pairs) == len(datalist["test"]) == 12
    assert pairs["P04_0_to_P05_1"] == {
        "fixed_image": "images/P05_1.nii.gz",
        "moving_image": "images/P04_0.nii.gz",
        "fixed_label": "labels/P05_1.nii.gz",
        "moving_label": "labels/P04_0.nii.gz",
        "pair_id": "P04_0_to_P05_1",
        "patient": ["P04", "P05"],
    }
    for item in datalist["training"] + datalist["validation"] + datalist["test"]:
        paths = [value for key, value in item.items() if key.endswith(("image", "label"))]
        assert all((dataset / path).is_file() for path in paths)
    repeats = {pair["pair_id"] for pair in datalist["test"] if len(pair["patient"]) == 1}
    assert repeats == {path.name.removesuffix(".nii.gz") for path in (dataset / "displacements").iterdir()}


def test_displacement_files_map_landmarks(dataset):
    """Read as any LPS tool would: fixed point + displacement = moving point."""
    truth = nib.load(dataset / "displacements" / "P04_0_to_P04_1.nii.gz")
    fixed, moving = (nib.load(dataset / "labels" / f"P04_{scan}.nii.gz") for scan in (1, 0))
    assert truth.shape == (*fixed.shape[:3], 1, 3)
    assert truth.get_data_dtype() == np.float32
    assert int(truth.header["intent_code"]) == 1007
    ras = torch.as_tensor(truth.get_fdata()[:, :, :, 0] * [-1, -1, 1]).movedim(-1, 0).float()
    points = [
        centroids(torch.as_tensor(label.get_fdata()).movedim(-1, 0), label.affine)[1:] for label in (fixed, moving)
    ]
    mapped = fixed_to_moving(points[0], ras, fixed.affine)
    assert np.linalg.norm(mapped - points[1], axis=1).max() < 0.8


def test_datasets_are_deterministic_and_seeds_differ(dataset, tmp_path):
    (tmp_path / "again").mkdir()
    again = simulate_dataset(tmp_path / "again", patients=6, scans=2, seed=3)
    other = simulate_dataset(tmp_path / "other", patients=6, scans=2, seed=4)
    name = "images/P05_1.nii.gz"
    first, second, third = (nib.load(folder / name) for folder in (dataset, again, other))
    np.testing.assert_array_equal(first.dataobj, second.dataobj)
    np.testing.assert_array_equal(first.affine, second.affine)
    assert not np.array_equal(first.affine, third.affine)


@pytest.mark.parametrize("patients, training, held_out", [(12, 8, 2), (24, 16, 4)])
def test_split_sizes(tmp_path, monkeypatch, patients, training, held_out):
    scan = simulate_scan(0, 0)
    monkeypatch.setattr(simulation, "simulate_scan", lambda patient_seed, scan_seed: scan)
    monkeypatch.setattr(simulation, "_save", lambda *args: None)
    folder = simulate_dataset(tmp_path / "data", patients=patients)
    datalist = json.loads((folder / "datalist.json").read_text())
    assert len({item["patient"] for item in datalist["training"]}) == training
    for split in ("validation", "test"):
        assert len({patient for pair in datalist[split] for patient in pair["patient"]}) == held_out


def test_errors(tmp_path, scans):
    for arguments in ({"patients": 5}, {"scans": 1}, {"seed": -1}):
        with pytest.raises(ValueError, match="expected at least 6 patients, 2 scans and a seed from 0"):
            simulate_dataset(tmp_path / "data", **arguments)
    with pytest.raises(ValueError, match="expected integers from 0"):
        simulate_scan(0, -1)
    with pytest.raises(ValueError, match="known only between scans of one patient"):
        known_displacement(scans[0, 0], scans[1, 0])
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not an empty folder"):
        simulate_dataset(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(patient_seed, scan_seed):
        raise RuntimeError("disk full")

    monkeypatch.setattr(simulation, "simulate_scan", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        simulate_dataset(tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_points_of_simulated_slices_correspond(tmp_path):
    """Patches around them look alike, up to speckle, and far less alike where they are not."""
    simulate_slices(tmp_path, "ab", seed=1)
    likeness = {0: [], 7: []}
    for name in "ab":
        scans = [np.asarray(Image.open(tmp_path / f"{side}/{name}.png"), dtype=float) for side in ("fixed", "moving")]
        points = np.loadtxt(tmp_path / f"landmarks/{name}.csv", delimiter=",", skiprows=1)
        around = np.stack(np.meshgrid(*[np.arange(-6, 7)] * 2, indexing="ij"))
        for off, found in likeness.items():
            for point in points:
                places = (point[:2] + off, point[2:])
                fixed, moving = (
                    map_coordinates(scan, around + place[:, None, None], order=1)
                    for scan, place in zip(scans, places, strict=True)
                )
                found.append(np.corrcoef(fixed.ravel(), moving.ravel())[0, 1])
    assert np.median(likeness[0]) > 0.8
    assert np.median(likeness[7]) < 0.3


def test_the_example_is_what_the_readme_names(tmp_path):
    written = write_example(tmp_path)
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    for text in re.findall(r"```json\n(.*?)```", readme, re.DOTALL):
        assert json.loads(text) in [json.loads(path.read_text()) for path in written if path.suffix == ".json"]
    for path in (path for path in written if path.suffix == ".json"):
        for image in json.loads(path.read_text())["test"][0].values():
            assert (path.with_suffix("").parent / path.stem.replace("pairs", "data") / image).exists()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(FileExistsError, match="already there: .*my_data"):
        write_example(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
