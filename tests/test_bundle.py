"""The conventions of a MONAI bundle: properties, metadata, network, exports, loading, overlays."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import yaml
from monai.bundle import (
    ConfigParser,
    ConfigWorkflow,
    ckpt_export,
    onnx_export,
    verify_metadata,
    verify_net_in_out,
)
from onnx.reference import ReferenceEvaluator
from workflow_fixtures import INFERENCE, ROOT, SMALL, SMALL_TRAINING, TRAIN, options, pair, without_checkout, write_json

from bundle.registration import RegistrationNetwork
from bundle.registration.moving import moved_names
from bundle.system import twins
from bundle.system.configurations import explained

pytest_plugins = ["workflow_fixtures"]

CONFIGS = ROOT / "configs"
METADATA = CONFIGS / "metadata.json"
EXPERIMENTS = set((CONFIGS / "experiments").glob("*.yaml"))
SLICES = set(CONFIGS.rglob("*2d.yaml"))
PROCESSES = set(CONFIGS.rglob("multi_gpu_*.yaml"))
MAPS = CONFIGS / "maps.yaml"
OF_MAPS = set(CONFIGS.rglob("*_maps.yaml"))
COMMAND = CONFIGS / "overlays/command.yaml"  # which has keys of its own
WHOLE = {TRAIN, INFERENCE, MAPS, COMMAND, *OF_MAPS, *EXPERIMENTS}
PRESETS = sorted(path for path in CONFIGS.rglob("*.yaml") if path not in WHOLE | SLICES | PROCESSES)
# `python -m` as on a machine where the package is not installed.
UNINSTALLED = """
import runpy, sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
sys.path = [path for path in sys.path if path not in ("", {root!r}) and "editable" not in path]
try:
    import bundle
except ModuleNotFoundError:
    runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
"""


def content(path):
    return ConfigParser.load_config_file(path)


def settings(path):
    """Hyperparameters: what stands before the definitions."""
    head = path.read_text().split("# --- definitions")[0]
    return head, [key for key in yaml.safe_load(head) if key != "imports"]


def own_keys(path):
    """Keys that an overlay sets, without those that it brings along."""
    keys = {key.lstrip("+").split("::")[0] for key in content(path)}
    return keys - {"global_size", "moving_layers"}


def network_def(files, **values):
    """Network of a configuration with weights that are not the identity."""
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    parser.update({"channels": 2, "maps_seen": 0, **values})
    torch.manual_seed(0)
    network = parser.get_parsed_content("network_def")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return network, parser


# --- workflows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("file", "kind"), [(TRAIN, "train"), (INFERENCE, "infer")])
def test_workflow_has_every_required_property(file, kind, tiny_dataset, tmp_path):
    values = {"dataset_dir": str(tiny_dataset), "datalist": "datalist.json", "output_dir": str(tmp_path)}
    workflow = ConfigWorkflow(
        config_file=str(file),
        workflow_type=kind,
        **values,
        **(SMALL_TRAINING if kind == "train" else {**SMALL, "map_pixdim": 5}),
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    required = [name for name, details in workflow.properties.items() if details["required"]]
    assert len(required) > 5
    for name in required:
        assert getattr(workflow, name) is not None
    assert Path(workflow.bundle_root) == ROOT
    if kind == "train":
        assert workflow.max_epochs == 2


# --- metadata -----------------------------------------------------------------------------------------------------


def test_metadata_meets_the_schema(tmp_path):
    text = {"type": "string", "minLength": 1}
    texts = ["schema", "version", "monai_version", "pytorch_version", "numpy_version", "task", "description"]
    texts += ["authors", "copyright"]
    tensor = {
        "type": "object",
        "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data"],
    }
    data_format = {"type": "object", "required": ["inputs", "outputs"]}
    data_format["properties"] = {
        "inputs": {"required": ["image"], "properties": {"image": tensor}},
        "outputs": {"required": ["pred"], "properties": {"pred": tensor}},
    }
    properties = {name: text for name in texts} | {
        "required_packages_version": {"type": "object", "additionalProperties": text},
        "changelog": {"type": "object", "required": [content(METADATA)["version"]]},
        "network_data_format": data_format,
    }
    schema = write_json(
        tmp_path / "schema.json", {"type": "object", "required": list(properties), "properties": properties}
    )
    verify_metadata(meta_file=str(METADATA), filepath=str(schema))
    broken = write_json(tmp_path / "broken.json", {**content(METADATA), "task": ""})
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(meta_file=str(broken), filepath=str(schema))


def test_metadata_names_the_pinned_versions():
    metadata = content(METADATA)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {name.lower(): version for name, _, version in (line.partition("==") for line in lines)}
    assert metadata["version"] == project["version"]
    for package in ("monai", "torch", "numpy"):
        name = {"torch": "pytorch"}.get(package, package)
        assert metadata[f"{name}_version"] == pins[package]
    for package, version in metadata["required_packages_version"].items():
        assert version == pins[package], package


# --- network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [TRAIN, INFERENCE], ids=lambda path: path.stem)
def test_network_takes_a_joined_pair_and_gives_a_field(file):
    arguments = {"meta_file": str(METADATA), "config_file": str(file), "device": "cpu"}
    verify_net_in_out(net_id="network_def", channels=2, maps_seen=3, **arguments)
    formats = content(METADATA)["network_data_format"]
    assert formats["inputs"]["image"]["num_channels"] == 2 * (1 + content(INFERENCE)["map_channels"])
    assert formats["outputs"]["pred"]["num_channels"] == 3


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Weights of a small network, its eager field of a pair, and how to export it."""
    folder = tmp_path_factory.mktemp("exported")
    network, _ = network_def([INFERENCE])
    torch.save(network.state_dict(), folder / "model.pt")
    joined = torch.rand(1, 2, 16, 16, 24)
    with torch.no_grad():
        field = network(joined)
    assert field.abs().max() > 0.1
    arguments = {"net_id": "network_def", "ckpt_file": str(folder / "model.pt"), "meta_file": str(METADATA)}
    return folder, joined, field, {**arguments, "config_file": str(INFERENCE), "channels": 2, "maps_seen": 0}


def test_torchscript_export_gives_the_field_of_the_network(exported):
    folder, joined, field, arguments = exported
    ckpt_export(filepath=str(folder / "model.ts"), **arguments)
    assert torch.equal(torch.jit.load(folder / "model.ts")(joined), field)


def test_onnx_export_gives_the_field_of_the_network(exported):
    folder, joined, field, arguments = exported
    onnx_export(filepath=str(folder / "model.onnx"), input_shape=list(joined.shape), **arguments)
    evaluator = ReferenceEvaluator(onnx.load(folder / "model.onnx"))
    (found,) = evaluator.run(None, {evaluator.input_names[0]: joined.numpy()})
    # The reference sums in another order, in float32, over many layers.
    np.testing.assert_allclose(found, field.numpy(), atol=1e-4)


def load_elsewhere(folder, channels=2, **arguments):
    """``monai.bundle.load`` from another folder, on a machine where the package is not installed; field of a pair."""
    torch.manual_seed(1)
    joined = torch.rand(1, channels, 16, 24, 16)
    torch.save(joined, folder / "pair.pt")
    script = f"""
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
sys.path = [path for path in sys.path if path not in ("", {str(ROOT)!r})]
import torch, monai.bundle
network = monai.bundle.load(name={ROOT.name!r}, bundle_dir={str(ROOT.parent)!r}, device="cpu", **{arguments!r})
with torch.no_grad():
    torch.save(network(torch.load("pair.pt")), "field.pt")
"""
    subprocess.run([sys.executable, "-c", script], cwd=folder, env=without_checkout(), check=True, capture_output=True)
    return joined, torch.load(folder / "field.pt")


def assert_registers_alike(path, joined, field, **values):
    network, parser = network_def([INFERENCE], **values)
    network.load_state_dict(torch.load(path, weights_only=True))
    with torch.no_grad():
        expected = RegistrationNetwork(network).coarse(joined)
    assert field.abs().max() > 0
    # Instance and batch statistics of one pair are the same numbers, summed in another order.
    torch.testing.assert_close(field, expected, atol=1e-5, rtol=1e-4)


def test_load_elsewhere_gives_the_network_that_inference_uses(exported, tmp_path):
    weights = exported[0] / "model.pt"
    override = {"self#root#num_channel_initial": 2, "self#root#in_channels": 2}
    joined, field = load_elsewhere(tmp_path, model_file=str(weights), net_override=override)
    assert_registers_alike(weights, joined, field)


@pytest.mark.skipif(not (ROOT / "models/model.pt").exists(), reason="models/model.pt is not there")
def test_load_elsewhere_gives_the_weights_of_the_bundle(tmp_path):
    maps = content(INFERENCE)["map_channels"]
    joined, field = load_elsewhere(tmp_path, 2 * (1 + maps))
    channels = content(INFERENCE)["channels"]
    assert_registers_alike(ROOT / "models/model.pt", joined, field, channels=channels, maps_seen=maps)


# --- configurations -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [TRAIN, INFERENCE], ids=lambda path: path.stem)
def test_json_twin_equals_the_yaml(file):
    twin, own = content(file.with_suffix(".json")), content(file)
    # What monai.bundle.load instantiates must not need this package.
    assert twin == {**own, "maps_seen": ConfigParser(content(INFERENCE)).get_parsed_content("maps_seen")}


def test_training_and_inference_define_the_same_registration():
    train, inference = content(TRAIN), content(INFERENCE)
    blocks = ["preprocessing", "network_def", "plain_network", "registration_network", "prepare_batch"]
    blocks += ["plain_optimizer", "inner_optimizer", "adaptation_loss"]
    shared = {key for key in settings(TRAIN)[1] if key in settings(INFERENCE)[1]} | {*blocks}
    assert {"pixdim", "channels", "similarity", "inner_lr", "steps"} <= shared
    of_weights = {"map_weights", "step_sizes", "leading_maps"}  # what ships brings its own
    for key in shared - {"output_dir", "pairing", "pair_limits", *of_weights}:
        assert train[key] == inference[key], key


def test_labels_of_a_new_pair_join_what_the_steps_compare():
    """They took the place of the maps, in silence."""
    parser = ConfigParser(ConfigParser.load_config_files([INFERENCE, CONFIGS / "overlays/test_labels.yaml"]))
    loss = parser.get_parsed_content("adaptation_loss")
    assert loss.label is not None and loss.anatomy is not None
    assert (loss.anatomy_weight, loss.leading_maps) == (10.0, [0])


def test_maps_are_those_that_the_registration_asks_for():
    maps, parser = content(MAPS), network_def([INFERENCE])[1]
    assert maps["pixdim"] == parser["map_pixdim"]
    assert len(maps["structures"]) == parser["map_channels"]


def train_maps(command, dataset, **settings):
    values = {"pixdim": 6.0, "filters": "[4,8,8]", "spatial_size": "[16,16,16]", "structures": "[1]", "landmarks": "[]"}
    values |= {"dataset_dir": dataset, "split": "[1.0,0.0,0.0]", "epochs": 1, "output_dir": "maps", **settings}
    return command("bundle", "run", "maps", "--config_file", "maps", *options(values))


def test_a_map_network_whose_loss_is_no_number_is_not_written(tiny_dataset, command):
    """Weights of NaN were, and the training ended as if they were of use."""
    finished = train_maps(command, tiny_dataset, lr=1e30)
    assert finished.code == 1
    assert re.search("error: the loss became (nan|inf) at iteration [123]; lower lr", finished.error)
    assert not list((command.folder / "maps").glob("*.pt"))


def test_maps_trained_without_validation_are_those_of_the_last_epoch(tiny_dataset, command):
    finished = train_maps(command, tiny_dataset)
    assert finished.code == 0, finished.error
    assert "no validation images: model.pt is that of the last epoch" in finished.out
    assert "no validation in so few epochs" not in finished.out
    found, last = (
        torch.load(command.folder / f"maps/{name}.pt", weights_only=True) for name in ("model", "model_last")
    )
    assert all(torch.equal(found[key], last[key]) for key in last)


def test_maps_of_too_few_epochs_for_a_validation_say_so(tiny_dataset, command):
    """They had validation images, and model.pt passed for the best of them."""
    finished = train_maps(command, tiny_dataset, split="[0.6,0.4,0.0]", datalist=tiny_dataset / "datalist.json")
    assert finished.code == 0, finished.error
    assert "no validation in so few epochs (val_interval): model.pt is that of the last epoch" in finished.out


def test_workers_that_load_pairs_leave_the_gpu_to_the_process_that_trains():
    made = []
    for workers in (0, 2):
        parser = ConfigParser.load_config_file(TRAIN)
        parser = ConfigParser({**parser, "device": "$torch.device('cuda:0')", "num_workers": workers})
        made.append(parser.get_parsed_content("map_device"))
    assert made == [torch.device("cuda:0"), "cpu"]


@pytest.mark.parametrize(
    ("name", "points", "rate"),
    [
        ("presets/hippocampus_mr", (10, 14, 8), 0.1),
        ("overlays/residual_field", (6, 7, 6), 0.3),
    ],
)
@pytest.mark.parametrize("base", [TRAIN, INFERENCE], ids=lambda path: path.stem)
def test_control_points_put_a_coarse_field_beside_the_network_which_alone_moves(base, name, points, rate):
    parser = ConfigParser({**content(base), "map_weights": None, "weights": None})
    plain = parser.get_parsed_content("registration_network")
    assert type(plain) is RegistrationNetwork
    assert parser.get_parsed_content("inner_optimizer").func is torch.optim.Adam
    files = [str(base), str(CONFIGS / f"{name}.yaml")]
    parser = ConfigParser({**ConfigParser.load_config_files(files), "map_weights": None})
    network, optimizer = (parser.get_parsed_content(key) for key in ("registration_network", "inner_optimizer"))
    assert network.residual.shape == (1, 3, *points)
    assert moved_names(network, optimizer) == {"residual"}
    assert optimizer(network.named_parameters()).param_groups[0]["lr"] == rate
    assert not parser.get_parsed_content("step_sizes")


@pytest.mark.parametrize("overlay", ["named_layers", "step_sizes"])
@pytest.mark.parametrize(("base", "steps"), [(TRAIN, "train::trainer"), (INFERENCE, "inferer")])
def test_a_coarse_field_that_the_steps_would_leave_at_zero_is_refused(base, steps, overlay, tiny_dataset):
    """They moved the weights, at the step size of the field."""
    names = ("overlays/bilevel", "overlays/residual_field", f"overlays/{overlay}")
    files = [str(base), *(str(CONFIGS / f"{name}.yaml") for name in names if base == TRAIN or "bilevel" not in name)]
    own = {"map_weights": None, "dataset_dir": str(tiny_dataset), "moving_layers": ["*decode*"]}
    parser = ConfigParser({**ConfigParser.load_config_files(files), **own})
    with pytest.raises(RuntimeError) as error:
        parser.get_parsed_content(steps)
    assert re.match(r"control_points is given, and inner_optimizer moves \d+ weights", str(error.value.__cause__))
    assert type(ConfigParser({**parser.config, "control_points": None}).get_parsed_content(steps)) is not None


@pytest.mark.parametrize("path", sorted(OF_MAPS), ids=lambda path: path.stem)
def test_what_is_set_for_maps_is_known(path):
    assert own_keys(path) <= set(content(MAPS))


@pytest.mark.parametrize("file", [TRAIN, MAPS], ids=lambda path: path.stem)
@pytest.mark.parametrize("device", ["cpu", "cuda:0", torch.device("cuda:1")])
def test_a_gpu_has_processes_that_prepare_its_images_however_it_is_named(file, device):
    parser = ConfigParser({**ConfigParser.load_config_file(file), "device": device})
    assert parser.get_parsed_content("num_workers") == (0 if device == "cpu" else 4)


@pytest.mark.parametrize("file", [TRAIN, INFERENCE, MAPS], ids=lambda path: path.stem)
def test_every_hyperparameter_is_explained(file):
    head, keys = settings(file)
    for key in keys:
        block = re.search(rf"^{key}:.*(?:\n[ ]+.*)*", head, re.MULTILINE)
        assert block is not None
        explained = "#" in block.group() or key == "bundle_root"
        assert explained, f"{key} has no comment"


@pytest.mark.parametrize("file", [TRAIN, INFERENCE, MAPS, CONFIGS / "inference_2d.yaml"], ids=lambda path: path.stem)
def test_the_help_knows_every_value_of_a_configuration(file):
    values, (_, keys) = content(file), settings(file)
    listed = {name: default for name, (default, _) in explained(file).items()}
    assert {name.partition("::")[0] for name in listed} == set(keys)
    for name, default in listed.items():
        key, _, part = name.partition("::")
        value = values[key][part] if part else values[key]
        component = value["_target_"] if isinstance(value, dict) else value
        assert default in (value, component) or yaml.safe_load(default) == value


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_preset_registers_a_pair_of_odd_size(preset):
    assert own_keys(preset) <= set(content(TRAIN)) | set(content(INFERENCE)), "unknown to train.yaml and inference.yaml"
    small = {"global_size": [32, 32, 32]} if "global_size" in content(preset) else {}
    network, parser = network_def([TRAIN, preset], **small)
    registration = parser.get_parsed_content("registration_network")
    # Sizes as the preprocessing pads them: multiples of size_divisor x downsampling, odd multiples and all different.
    divisor = parser.get_parsed_content("size_divisor") * parser.get_parsed_content("downsampling")
    joined = torch.rand(2, 2, divisor, 3 * divisor, 5 * divisor if divisor < 24 else 2 * divisor)
    with torch.no_grad():
        field = registration(joined)
    assert field.shape == (2, 3, *joined.shape[2:])
    assert torch.isfinite(field).all()
    assert field.abs().max() > 0
    assert field.dtype == torch.float32


@pytest.mark.parametrize("path", sorted(SLICES - EXPERIMENTS), ids=lambda path: path.stem)
def test_what_is_set_for_slices_is_known(path):
    assert own_keys(path) <= set(content(TRAIN)) | set(content(INFERENCE))


@pytest.mark.parametrize("network", ["", "voxelmorph", "globalnet", "composite"])
def test_every_network_registers_slices(network):
    files = [
        TRAIN,
        CONFIGS / "overlays/2d.yaml",
        *([CONFIGS / f"overlays/{network}.yaml"] if network else []),
        CONFIGS / "presets/cpu_2d.yaml",
    ]
    parser = network_def(files, channels=2)[1]
    registration = parser.get_parsed_content("registration_network")
    joined = torch.rand(1, 2, *parser.get_parsed_content("spatial_size"))
    with torch.no_grad():
        field = registration(joined)
    assert field.shape == joined.shape
    assert field.abs().max() > 0
    terms = parser.get_parsed_content("loss")(field, joined)
    assert torch.isfinite(terms["loss"])


# What slices have no use for: maps, and the numbers of the other network and preprocessing.
UNUSED = {"intensity_percentiles", "maps_seen", "map_held_out", "map_device", "map_channels", "map_pixdim"}


@pytest.mark.parametrize(
    ("name", "more"),
    [("inference_2d.yaml", {"channels", "shipped", "score_limits"}), ("fine_tune_2d.yaml", {"map_folds"})],
)
def test_a_configuration_of_slices_is_the_one_of_volumes_with_the_overlays(name, more):
    base, overlays, _ = twins.WRITTEN_OUT[name]
    joined = ConfigParser.load_config_files([CONFIGS / base, *(CONFIGS / each for each in overlays)])
    own = content(CONFIGS / name)
    assert not {key for key, value in own.items() if joined[key] != value}
    assert (CONFIGS / name).read_text() == twins.written_out(name)
    only_training = own_keys(CONFIGS / "overlays/2d.yaml") - set(own)
    assert set(joined) - set(own) - only_training == UNUSED | more


def test_run_works_elsewhere_without_an_installation(tiny_dataset, trained, tmp_path):
    datalist = write_json(tmp_path / "pairs.json", {"test": [pair("F", "G", pair_id="one")]})
    values = {"dataset_dir": tiny_dataset, "datalist": datalist, "weights": trained / "model.pt", **SMALL}
    values |= {"output_dir": "results", "pictures": False, "quality_pages": False}
    environment = without_checkout()
    script = [sys.executable, "-c", UNINSTALLED.format(root=str(ROOT)), "run", "--config_file", str(INFERENCE)]
    finished = subprocess.run(
        [*script, *options(values)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
    metrics = json.loads((tmp_path / "results/one/metrics.json").read_text())
    assert metrics["steps"] == SMALL["steps"]
