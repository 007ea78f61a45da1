"""Transforms of a pair both ways: affines stay affine, the inverse undoes the transform, files say the same."""

import json

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from test_outputs import SmoothField, register
from test_transforms import inner_points
from torch import nn
from toys import affine_ddf, apply, rigid

from bundle.evaluation import PairMetricsd
from bundle.formats import read_transform
from bundle.geometry import Transform, compose
from bundle.registration import RegistrationNetwork
from bundle.results import NativeOutputsd, SavePaird, TransformsBothWaysd
from bundle.results.inverse import residual

pytest_plugins = ["workflow_fixtures"]


@pytest.fixture
def files(tmp_path, fixed_grid, moving_grid, save_nifti):
    pair = {"pair_id": "a_to_b"}
    for side, grid in (("fixed", fixed_grid), ("moving", moving_grid)):
        pair[f"{side}_image"] = save_nifti(tmp_path / f"{side}.nii.gz", grid.smooth_image(), grid.affine)
    return pair


def both_ways(files, content, network, **settings):
    return TransformsBothWaysd()(register(files, content, network, **settings))


class Velocity(nn.Module):
    """Predicts a smooth velocity of up to 3 voxels whatever the pair."""

    def forward(self, pair):
        return 2 * SmoothField()(pair)


@pytest.mark.parametrize("mode", ["center", "world", "none"])
def test_there_and_back_is_the_identity_within_a_tenth_of_a_voxel(files, content, fixed_grid, mode):
    result = both_ways(files, content, SmoothField(), initial_alignment=mode)
    points = inner_points(fixed_grid, margin=0.25)
    moved = result["transform"](points)
    inside = result["inverse_transform"].covers(moved)
    back = result["inverse_transform"](moved)
    smallest_voxel = 0.9
    assert inside.float().mean() > (0.3 if mode == "none" else 0.8)
    assert (back - points).norm(dim=0)[inside].max() < 0.1 * smallest_voxel
    found = result["inverse_residual_mm"]
    assert 0 < found["mean"] < 0.02
    assert found["mean"] < found["p95"] < found["max"] < 0.5


def test_the_transform_is_the_displacement(files, content, fixed_grid):
    result = both_ways(files, content, SmoothField())
    world = torch.as_tensor(fixed_grid.world())
    np.testing.assert_allclose(result["transform"](world) - world, result["displacement"], atol=1e-3)


def test_the_inverse_displacement_lies_on_the_moving_grid(files, content, moving_grid):
    result = both_ways(files, content, SmoothField())
    world = torch.as_tensor(moving_grid.world())
    np.testing.assert_allclose(result["inverse_displacement"].affine, moving_grid.affine, atol=1e-5)
    source = world + result["inverse_displacement"].as_tensor()
    assert (result["transform"](source) - world).norm(dim=0).max() < 0.01


def test_an_affine_field_is_one_affine_and_its_inverse_exact(files, content, fixed_grid):
    matrix = np.array([[0.05, 0.02, 0], [-0.03, 0.1, 0.01], [0, 0, -0.05]])

    def network(pair):
        return affine_ddf(matrix, [1.0, -2.0, 0.5], pair.shape[2:])[None]

    result = both_ways(files, content, network)
    assert result["transform"].is_affine
    points = torch.as_tensor(fixed_grid.world()[:, 4:-4, 4:-4, 4:-4])
    displaced = points + result["displacement"].as_tensor()[:, 4:-4, 4:-4, 4:-4]
    np.testing.assert_allclose(result["transform"](points), displaced, atol=0.02)
    assert result["inverse_residual_mm"]["max"] < 1e-3


def test_globalnet_and_the_initial_alignment_alone_are_affines(files, content, tmp_path):
    torch.manual_seed(0)
    network = content("globalnet.yaml", "network_def", spatial_dims=3, channels=2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
        result = both_ways(files, content, network)
    assert result["transform"].is_affine
    assert result["displacement"].numpy().std() > 0.1
    start = both_ways(files, content, lambda pair: torch.zeros(1, 3, *pair.shape[2:]))
    np.testing.assert_allclose(start["transform"].parts[0], start["initial_alignment"], atol=1e-6)
    SavePaird(tmp_path)({**start, "metrics": {}})
    assert {"transform.tfm", "inverse_transform.tfm"} <= {path.name for path in (tmp_path / "a_to_b").iterdir()}


def test_a_velocity_is_inverted_by_its_negative(files, content, fixed_grid, monkeypatch):
    """``exp(-v)`` alone, before any iteration, undoes ``exp(v)`` but for interpolation."""
    network = RegistrationNetwork(Velocity(), integration_steps=6)
    data = register(files, content, network, pixdim=1.0)
    shape = data["pred"]["ddf"].shape[1:]
    data["pred"]["inverse_ddf"] = network.inverse(torch.zeros(1, 2, *shape))[0]
    monkeypatch.setattr(Transform, "inverse_at", lambda self, points, start: start)
    result = TransformsBothWaysd()(data)
    points = inner_points(fixed_grid, margin=0.3)
    assert (result["transform"](points) - apply(data["initial_alignment"], points)).norm(dim=0).max() > 2
    assert (result["inverse_transform"](result["transform"](points)) - points).norm(dim=0).max() < 0.09


def test_the_network_gives_the_inverse_of_a_velocity_only():
    pair = torch.rand(1, 2, 24, 24, 24)
    network = RegistrationNetwork(Velocity(), integration_steps=6)
    there, back = network(pair), network.inverse(pair)
    core = (slice(None), slice(None), *[slice(7, -7)] * 3)
    assert there[core].abs().max() > 1
    assert compose(there, back)[core].abs().max() < 0.1
    with pytest.raises(ValueError, match="integration_steps is 0: the network predicts a displacement"):
        RegistrationNetwork(Velocity()).inverse(pair)


def test_files_hold_both_ways(files, content, tmp_path, fixed_grid):
    result = both_ways(files, content, SmoothField())
    SavePaird(tmp_path / "out")({**result, "metrics": {"inverse_residual_mm": result["inverse_residual_mm"]}})
    folder = tmp_path / "out/a_to_b"
    points = inner_points(fixed_grid)
    for name in ("transform", "inverse_transform"):
        read = read_transform(folder / f"{name}.h5")
        np.testing.assert_allclose(read(points), result[name](points), atol=1e-5)
    field = read_transform(folder / "inverse_displacement.nii.gz")
    moved = result["transform"](points)
    np.testing.assert_allclose(field(moved), result["inverse_transform"](moved), atol=0.01)
    assert json.loads((folder / "metrics.json").read_text())["inverse_residual_mm"]["max"] < 0.5


def test_slices_go_both_ways_in_their_plane():
    affine, shape = np.diag([0.5, 0.5, 2.0, 1.0]), (24, 20, 1)
    image = MetaTensor(torch.zeros(1, *shape), affine=torch.as_tensor(affine))
    x, y = torch.meshgrid(torch.arange(24.0), torch.arange(20.0), indexing="ij")
    ddf = torch.stack([torch.sin(y / 5), torch.cos(x / 6)])
    data = {
        **{name: image for name in ("fixed_image", "native_fixed_image", "native_moving_image")},
        "initial_alignment": np.eye(4),
        "pred": {"ddf": ddf},
    }
    result = TransformsBothWaysd()(NativeOutputsd()(data))
    assert not result["transform"].is_affine
    np.testing.assert_allclose(result["inverse_displacement"][2], 0, atol=1e-6)
    points = torch.as_tensor(apply(affine, np.random.default_rng(0).uniform(4, 15, size=(3, 50)) * [[1], [1], [0]]))
    back = result["inverse_transform"](result["transform"](points))
    assert (back - points).norm(dim=0).max() < 0.05


def test_the_residual_says_how_far_a_wrong_inverse_misses(files, content, fixed_grid):
    result = both_ways(files, content, SmoothField())
    shift = rigid((0, 0, 0), [3, 0, 4], [0, 0, 0])
    wrong = type(result["inverse_transform"])([*result["inverse_transform"].parts, shift])
    found = residual(result["transform"], wrong, fixed_grid.affine, fixed_grid.shape)
    assert abs(found["mean"] - 5) < 0.05
    far = type(wrong)([np.eye(4) + 1e6 * shift])
    assert np.isnan([*residual(far, result["inverse_transform"], fixed_grid.affine, fixed_grid.shape).values()]).all()


def test_metrics_and_command_line_have_the_inverse(tiny_dataset, trained, command, tmp_path):
    finished = command.register(
        tmp_path / "out",
        dataset_dir=tiny_dataset,
        datalist=tiny_dataset / "datalist.json",
        section="test",
        weights=trained / "model.pt",
        transforms=True,
        integration_steps=4,
        inner_lr=0.005,
    )
    assert finished.code == 0, finished.error
    folder = tmp_path / "out/F_to_G"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics["inverse_residual_mm"]) == {"mean", "p95", "max"}
    assert {"transform.h5", "inverse_transform.h5", "inverse_displacement.nii.gz"} <= {
        path.name for path in folder.iterdir()
    }
    image = itk.imread(str(tiny_dataset / "images/F.nii.gz"), itk.F)
    reference = itk.imread(str(tiny_dataset / "images/G.nii.gz"), itk.F)
    transform = itk.down_cast(itk.transformread(str(folder / "transform.h5"))[0])
    theirs = itk.resample_image_filter(image, transform=transform, reference_image=reference, use_reference_image=True)
    ours = nib.load(folder / "warped_image.nii.gz").get_fdata()
    np.testing.assert_allclose(itk.array_from_image(theirs).transpose(2, 1, 0), ours, atol=1e-3 * np.ptp(ours))


def test_metrics_without_the_inverse_do_not_name_it(files, content):
    result = register(files, content, SmoothField())
    pred = {
        "ddf": result["pred"]["ddf"],
        "losses": torch.ones(1),
        "loss_identity": 1.0,
        "seconds": 1.0,
        "step_seconds": 1.0,
    }
    scored = PairMetricsd(None, None, "cpu", 1)({**result, "pred": pred})
    assert "inverse_residual_mm" not in scored["metrics"]
