"""What the weights in models/ do to images: simulated ones, and real ones where they are at hand."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle import register
from bundle.api import read_configuration
from bundle.registration.search import AGREEMENT

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared/data/prostate_mr_trus/fixed_images"
COARSE = {"config_file": ["inference.yaml", "cpu.yaml"]}

pytest_plugins = ["workflow_fixtures"]


def moved(image, **settings):
    """Mean displacement of an image registered to itself, in voxels, and the metrics."""
    done = register(image, image, **COARSE, **settings)
    voxel = np.prod(nib.load(image).header.get_zooms()[:3]) ** (1 / 3)
    return float(np.linalg.norm(done.displacement, axis=0).mean()) / voxel, done.metrics


def known_of(weights):
    settings = read_configuration("inference.yaml", {"weights": str(weights), "map_weights": ["maps.pt"]})
    return [settings.get_parsed_content(key) for key in ("mirror_axis", "centred_maps", "score_limits", "search_mm")]


def test_weights_that_ship_are_known_wherever_they_lie(tmp_path):
    """A gateway's package and a copy of the folder hold the same weights; those of a training are others."""
    model = (ROOT / "models/model.pt").read_bytes()
    for name, content in (("model.pt", model), ("renamed.pt", model), ("other.pt", model[:-1] + b"x")):
        (tmp_path / name).write_bytes(content)
    assert known_of(ROOT / "models/model.pt") == [0, [0], [0.62, 0.5], 7.2]
    assert known_of(tmp_path / "model.pt") == [0, [0], [0.62, 0.5], 7.2]
    assert known_of(tmp_path / "renamed.pt") == [0, [0], [0.62, 0.5], 7.2]
    assert known_of(tmp_path / "other.pt") == [None, [], None, None]
    assert known_of(tmp_path / "gone.pt") == [None, [], None, None]


@pytest.mark.parametrize("steps", [0, 5])
def test_a_simulated_image_is_registered_to_itself(simulated_dataset, steps):
    image = sorted((simulated_dataset / "images").iterdir())[0]
    voxels, metrics = moved(image, steps=steps)
    assert voxels < 0.5
    assert metrics["folded_percent"] == 0


def test_no_registration_of_images_that_the_weights_do_not_know_is_good(simulated_dataset):
    fixed, moving = sorted((simulated_dataset / "images").iterdir())[:3:2]
    verdict = register(fixed, moving, **COARSE).metrics["verdict"]
    assert verdict["verdict"] != "good"
    assert any("vague or disagree" in reason for reason in verdict["reasons"])


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data/prostate_mr_trus")
@pytest.mark.parametrize("name", ["obs000", "obs040"])
def test_a_real_image_is_registered_to_itself(name):
    voxels, metrics = moved(REAL / f"{name}.nii.gz")
    assert voxels < 0.5
    assert metrics["predicted_overlap"] == pytest.approx(1, abs=1e-3)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data/prostate_mr_trus")
def test_no_registration_is_worse_than_the_initial_alignment_by_its_own_loss():
    done = register(REAL / "obs000.nii.gz", REAL / "obs040.nii.gz", **COARSE)
    adaptation = done.metrics["adaptation"]
    assert adaptation["best_loss"] <= min(done.metrics["loss"][0], adaptation["loss_identity"])


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data/prostate_mr_trus")
@pytest.mark.parametrize(("fixed", "moving", "alike"), [("obs079", "obs080", True), ("obs079", "obs006", False)])
def test_tissue_that_looks_alike_is_followed_within_a_patient_alone(fixed, moving, alike):
    pair = REAL / f"{fixed}.nii.gz", REAL / f"{moving}.nii.gz"
    searched, plain = (register(*pair, **COARSE, **settings) for settings in ({}, {"search_mm": None}))
    assert (searched.metrics["search_disagreement_mm"] <= 7.2 * AGREEMENT) == alike
    assert np.array_equal(searched.displacement, plain.displacement) != alike
    assert "search_disagreement_mm" not in plain.metrics
