"""What a model zoo asks of a bundle, called as its checks call it: no option but the bundle's own folder."""

import json
import re

import pytest
import torch
import yaml
from monai.bundle import ckpt_export, verify_net_in_out
from workflow_fixtures import ROOT, SMALL_TRAINING, options

pytest_plugins = ["workflow_fixtures"]
METADATA = ROOT / "configs/metadata.json"
CONFIG = ROOT / "configs/inference.json"
ASKED = ("LICENSE", "configs/metadata.json", "configs/inference.json", "configs/train.json", "configs/evaluate.json")
ASKED += ("configs/logging.conf", "docs/README.md", "docs/data_license.txt", "models/model.pt")


@pytest.mark.parametrize("name", ASKED)
def test_a_file_that_it_asks_for_is_there(name):
    assert (ROOT / name).stat().st_size > 0


def test_every_version_is_in_the_changelog_and_everywhere_the_same():
    metadata = json.loads(METADATA.read_text())
    assert metadata["version"] in metadata["changelog"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == metadata["version"]
    assert f"## {metadata['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_its_page_has_the_sections_of_the_template_in_their_order():
    page = (ROOT / "docs/README.md").read_text()
    asked = ["Authors", "Tags", "Model description", "Data", "Performance", "Additional usage steps"]
    asked += ["System configuration", "Limitations", "Citation info", "References"]
    assert [name for name in re.findall(r"^#+ (.+)$", page, re.MULTILINE) if name in asked] == asked


def test_no_file_is_larger_than_it_takes():
    assert max(path.stat().st_size for path in (ROOT / "models").iterdir()) < 25e6


def test_the_network_of_the_bundle_takes_and_gives_what_its_metadata_says():
    verify_net_in_out(
        net_id="network_def", meta_file=str(METADATA), config_file=str(CONFIG), bundle_root=str(ROOT), device="cpu"
    )


def test_its_weights_become_torchscript(tmp_path):
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(ROOT / "models/model.pt"),
        meta_file=str(METADATA),
        config_file=str(CONFIG),
        bundle_root=str(ROOT),
    )
    assert torch.jit.load(tmp_path / "model.ts")(torch.rand(1, 8, 16, 16, 16)).shape == (1, 3, 16, 16, 16)


def test_metrics_of_the_metadata_are_those_of_the_model_card():
    card = re.sub(r"[|*]", " ", (ROOT / "docs/README.md").read_text())
    slices = (ROOT / "README.md").read_text()
    for weights, metrics in json.loads(METADATA.read_text())["eval_metrics"].items():
        text = slices if weights.startswith("octa_2d") else card
        for name, value in metrics.items():
            assert f"{value:.{3 if name.startswith('dsc') else 1}f}" in text, (weights, name)


def test_the_weights_of_a_training_are_evaluated_on_its_test_pairs(command, dataset, trained):
    files = [str(ROOT / "configs/train.json"), str(ROOT / "configs/evaluate.json")]
    values = {**SMALL_TRAINING, "dataset_dir": dataset, "datalist": dataset / "datalist.json"}
    values |= {"output_dir": "evaluated", "start_weights": trained / "model.pt", "maps_seen": 0}
    run = command("monai.bundle", "run", "evaluating", "--config_file", str(files), *options(values))
    assert run.code == 0, run.err[-3000:]
    assert "'val_dsc': " in run.out


def test_an_evaluation_without_test_pairs_is_refused_before_it_writes(command, dataset, tmp_path):
    files = [str(ROOT / "configs/train.json"), str(ROOT / "configs/evaluate.json")]
    values = {**SMALL_TRAINING, "dataset_dir": dataset, "split": "[1.0,0.0,0.0]", "maps_seen": 0}
    values |= {"output_dir": tmp_path / "evaluated"}
    run = command("monai.bundle", "run", "evaluating", "--config_file", str(files), *options(values))
    assert run.code == 1
    assert "error: no test pairs (found: training " in run.err
    assert not (tmp_path / "evaluated").exists()
