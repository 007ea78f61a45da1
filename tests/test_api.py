"""Registration from Python: what goes in, what comes out, the same as the workflow's, however the voxels are stored."""

import json
import os
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from monai.transforms import Flip, LoadImage
from toys import apply, oblique_affine, rigid
from workflow_fixtures import SHAPE, SMALL, volume

import bundle
from bundle import create_workflow, register
from bundle.api import read_configuration
from bundle.formats import load_image, read_transform
from bundle.system import CONFIGS, DataWarning
from bundle.system.configurations import on_inference

pytest_plugins = ["workflow_fixtures"]

TINY = {
    "regularisation_weight": 1.0,
    "weights": None,
    "pixdim": 5.0,
    "downsampling": 1,
    "channels": 2,
    "steps": 4,
    "inner_lr": 0.01,
}
AFFINES = {
    "fixed": oblique_affine((5.0, 5.5, 6.0), (8, -5, 12), (-40.0, 20.0, 10.0)),
    "moving": oblique_affine((5.5, 5.0, 6.5), (-6, 10, -4), (-30.0, 5.0, 30.0)),
}


@pytest.fixture(scope="module")
def voxels():
    return {"fixed": volume(1)[0], "moving": volume(2)[0]}


@pytest.fixture(scope="module")
def result(voxels):
    return register(*[(voxels[side], AFFINES[side]) for side in ("fixed", "moving")], **TINY)


def world_points(count=50):
    """Points ``(3, n)`` in the inner part of the fixed image."""
    share = np.random.default_rng(0).uniform(0.25, 0.75, size=(3, count))
    return torch.as_tensor(apply(AFFINES["fixed"], share * (np.array(SHAPE) - 1)[:, None]))


def restored(array, affine, axes, flipped):
    """The same image with its axes in another order and some of them reversed: array and affine."""
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for new, old in enumerate(axes):
        turn[old, new] = -1 if old in flipped else 1
        turn[old, 3] = array.shape[old] - 1 if old in flipped else 0
    return np.flip(array, flipped).transpose(axes), affine @ turn


def test_consistency_is_measured_when_asked_for_and_changes_no_result(result, voxels):
    images = [(voxels[side], AFFINES[side]) for side in ("fixed", "moving")]
    asked = register(*images, **TINY, inverse_consistency=True, self_registration=True)
    assert asked.metrics["inverse_consistency_mm"] > 0
    assert 0 <= asked.metrics["self_displacement_mm"]["mean"] <= asked.metrics["self_displacement_mm"]["max"]
    assert not {"inverse_consistency_mm", "self_displacement_mm"} & result.metrics.keys()
    assert np.array_equal(asked.displacement, result.displacement)
    assert asked.metrics["loss"] == result.metrics["loss"]


def test_a_result_has_what_its_names_say(result, voxels):
    assert result.warped.shape == SHAPE
    assert result.displacement.shape == (3, *SHAPE)
    np.testing.assert_allclose(result.affine, AFFINES["fixed"], atol=1e-5)
    assert result.warped_label is None
    assert result.metrics["steps"] == 4
    assert result.metrics["loss"][-1] < result.metrics["loss"][0]
    voxel = np.array([9, 8, 7])
    point = apply(AFFINES["fixed"], voxel[:, None])
    np.testing.assert_allclose(result.to_moving(point.T), point.T + result.displacement[:, *voxel], atol=1e-3)
    np.testing.assert_allclose(result.to_fixed(result.to_moving(point.T)), point.T, atol=0.01)
    np.testing.assert_allclose(result.transform(torch.as_tensor(point)), result.to_moving(point.T).T)
    assert result.warped.min() >= 0
    assert 0.3 * np.ptp(voxels["moving"]) < np.ptp(result.warped)


def test_one_point_is_moved_like_several(result):
    points = world_points(3).T.numpy()
    for move in (result.to_moving, result.to_fixed):
        moved = move(points)
        assert np.abs(moved - points).max() > 1
        assert move(points[1]).shape == (3,)
        np.testing.assert_allclose(move(points[1].tolist()), moved[1], atol=0.01)
        for wrong in (points.T[:, :2], points[:, :2], points[None], [10.0, 20.0]):
            with pytest.raises(ValueError, match=r"points of the shape \(.*\), expected \(n, 3\), or \(3,\) for one"):
                move(wrong)


@pytest.mark.parametrize("side", ["fixed", "moving"])
@pytest.mark.parametrize(
    ("axes", "flipped"),
    [((0, 1, 2), (0, 1)), ((2, 0, 1), ()), ((0, 1, 2), (2,)), ((1, 0, 2), (0, 2))],
    ids=["LPS", "axes swapped", "left-handed", "all of it"],
)
def test_the_storage_of_an_image_does_not_matter(result, voxels, side, axes, flipped):
    stored = {name: (voxels[name], AFFINES[name]) for name in ("fixed", "moving")}
    stored[side] = restored(*stored[side], axes, flipped)
    again = register(stored["fixed"], stored["moving"], **TINY)
    points = world_points()
    deformation = (result.transform(points) - result.transform.parts[-1][:3, 3:] - points).norm(dim=0)
    assert deformation.max() > 1
    np.testing.assert_allclose(again.transform(points), result.transform(points), atol=0.02)
    np.testing.assert_allclose(
        again.inverse_transform(result.transform(points)), result.inverse_transform(result.transform(points)), atol=0.05
    )
    if side == "fixed":
        warped, _ = restored(result.warped, AFFINES["fixed"], axes, flipped)
        np.testing.assert_allclose(again.warped, warped, atol=0.05 * np.ptp(warped))


def test_turning_the_world_turns_the_result(result, voxels):
    # Small enough for the axes of the images to stay the nearest to the same axes of the world, which orders them.
    turn = rigid((12, -10, 15), [50, -20, 10], [0, 0, 0])
    images = [(voxels[side], turn @ AFFINES[side]) for side in ("fixed", "moving")]
    again = register(*images, **TINY)
    points = world_points()
    expected = apply(turn, result.transform(points).numpy())
    np.testing.assert_allclose(again.transform(torch.as_tensor(apply(turn, points.numpy()))), expected, atol=0.02)


def test_files_arrays_and_images_of_nibabel_are_the_same(result, voxels, tmp_path, save_nifti):
    files = {side: save_nifti(tmp_path / f"{side}.nii.gz", voxels[side], AFFINES[side]) for side in AFFINES}
    by_path = register(tmp_path / "fixed.nii.gz", files["moving"], device="cpu", **TINY)
    by_image = register(nib.load(files["fixed"]), nib.load(files["moving"]), **TINY)
    tensor = MetaTensor(torch.as_tensor(voxels["fixed"])[None], affine=torch.as_tensor(AFFINES["fixed"]))
    by_tensor = register(tensor, files["moving"], **TINY)
    by_reader = register(LoadImage(image_only=True)(files["fixed"]), files["moving"], **TINY)
    for other in (by_path, by_image, by_tensor, by_reader):
        np.testing.assert_allclose(other.displacement, result.displacement, atol=0.01)
    assert by_path.metrics["pair_id"] == "moving_to_fixed"


@pytest.mark.parametrize("name", ["a#1.nii", "$x.nii", "@a.nii", "%d.nii"])
def test_a_file_may_be_called_what_configurations_take_for_their_language(
    voxels, tmp_path, monkeypatch, save_nifti, name
):
    """Of ``a#1`` became ``a::1``, which may be another image, and a name with a dollar was run."""
    save_nifti(tmp_path / name.replace("#", "::"), voxels["fixed"], AFFINES["fixed"])
    save_nifti(tmp_path / name, voxels["moving"], AFFINES["moving"])
    monkeypatch.chdir(tmp_path)
    found = register((voxels["fixed"], AFFINES["fixed"]), name, **{**TINY, "steps": 0})
    np.testing.assert_allclose(found.data["native_moving_image"].affine, AFFINES["moving"], atol=1e-5)
    assert found.data["pair_id"].startswith(name.removesuffix(".nii"))


def test_it_is_the_workflow(tiny_dataset, trained, command, tmp_path):
    settings = {"weights": str(trained / "model.pt"), **SMALL, "inner_lr": 0.001}
    finished = command.register(
        tmp_path / "out", dataset_dir=tiny_dataset, datalist=tiny_dataset / "datalist.json", section="test", **settings
    )
    assert finished.code == 0, finished.error
    labels = {
        f"{side}_label": tiny_dataset / f"labels/{name}.nii.gz" for side, name in (("fixed", "G"), ("moving", "F"))
    }
    found = register(tiny_dataset / "images/G.nii.gz", tiny_dataset / "images/F.nii.gz", **labels, **settings)
    theirs = json.loads((tmp_path / "out/F_to_G/metrics.json").read_text())
    assert found.metrics["loss"] == theirs["loss"]
    assert found.metrics["dsc"] == theirs["dsc"]
    assert found.metrics["verdict"] == theirs["verdict"]
    saved = found.save(tmp_path / "mine")
    written = sorted(path.name for path in saved.iterdir())
    for name in ("displacement.nii.gz", "warped_image.nii.gz", "warped_label.nii.gz"):
        ours, other = (nib.load(folder / name).get_fdata() for folder in (saved, tmp_path / "out/F_to_G"))
        np.testing.assert_array_equal(ours, other)
    assert {"transform.h5", "inverse_transform.h5", "inverse_displacement.nii.gz", "quality.html"} <= set(written)
    measured = json.loads((saved / "metrics.json").read_text())
    assert measured.keys() - theirs.keys() == {"inverse_residual_mm"}
    assert 0 <= measured["inverse_residual_mm"]["mean"] <= measured["inverse_residual_mm"]["max"]
    assert "error of the inverse" in (saved / "quality.html").read_text()
    points = apply(found.affine, np.array([[9.0, 8, 7]]).T)
    np.testing.assert_allclose(
        read_transform(saved / "transform.h5")(torch.as_tensor(points)),
        found.transform(torch.as_tensor(points)),
        atol=1e-4,
    )


def test_nothing_is_written_and_nothing_changed_for_others(voxels, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    register((voxels["fixed"], AFFINES["fixed"]), (voxels["moving"], AFFINES["moving"]), **TINY)
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(torch.random.get_rng_state(), state)


def test_threads_get_what_they_get_alone_from_shared_weights(voxels, tmp_path):
    network = read_configuration("inference.yaml", TINY).get_parsed_content("network_def")
    torch.save(network.state_dict(), tmp_path / "model.pt")
    before = (tmp_path / "model.pt").read_bytes()
    images = [(voxels[side], AFFINES[side]) for side in ("fixed", "moving")]
    cases = [(images, {"steps": 4}), (images[::-1], {"steps": 4}), (images, {"steps": 2}), (images[::-1], {"steps": 1})]
    settings = {**TINY, "weights": str(tmp_path / "model.pt"), "at_once": 2}

    def work(case):
        pair, changed = case
        return register(*pair, **{**settings, **changed})

    alone = [work(case) for case in cases]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(work, cases * 3))
        folders = list(threads.map(lambda number: together[number].save(tmp_path / f"{number}"), range(len(cases))))
    for one, folder in zip(alone, folders, strict=True):
        kept = one.save(tmp_path / "alone")
        assert {path.name for path in folder.iterdir()} == {path.name for path in kept.iterdir()}
        for name in ("overview.png", "warped_image.nii.gz"):
            assert (folder / name).read_bytes() == (kept / name).read_bytes()
    for one, other in zip(alone * 3, together, strict=True):
        assert np.array_equal(one.displacement, other.displacement)
        assert one.metrics["loss"] == other.metrics["loss"]
    assert len({result.displacement.tobytes() for result in together}) == len(cases)
    assert (tmp_path / "model.pt").read_bytes() == before


def test_what_is_written_to_the_error_stream_survives_threads(voxels, tmp_path, save_nifti, capfd):
    """Reading a file drops what libraries print, of this thread's files only."""
    path = save_nifti(tmp_path / "fixed.nii.gz", voxels["fixed"], AFFINES["fixed"])
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(load_image, [path] * 40))
    os.write(2, b"still here")
    assert "still here" in capfd.readouterr().err


def test_a_notebook_shows_the_pair(result):
    assert result._repr_html_().startswith('<img alt="fixed, moving, warped" src="data:image/png;base64,iVBOR')


def test_slices_are_registered_with_the_configuration_for_slices():
    pictures = [(np.ascontiguousarray(volume(seed)[0][:, :, 5:6]), np.eye(4)) for seed in (1, 2)]
    options = {"config_file": "inference_2d.yaml", "spatial_size": [16, 16], "weights": None, "steps": 1}
    assert register(*pictures, **options).warped.shape == (20, 18, 1)
    with pytest.raises(ValueError, match="a single slice, expected a volume; configs/inference_2d.yaml"):
        register(*pictures, **TINY)


def test_bad_input_is_one_clear_line(voxels, tmp_path, save_nifti):
    fixed, moving = ((voxels[side], AFFINES[side]) for side in ("fixed", "moving"))
    whole = save_nifti(tmp_path / "whole.nii.gz", np.rint(moving[0]), moving[1])
    (tmp_path / "link.nii.gz").symlink_to(whole)
    cases = [
        ((fixed, tmp_path / "missing.nii.gz"), {}, FileNotFoundError, "moving_image not found: .*missing.nii.gz"),
        (
            (fixed, moving),
            {"stepz": 3},
            ValueError,
            r"unknown option stepz; did you mean steps\?; known options are .*steps",
        ),
        (
            (None, moving),
            {},
            ValueError,
            r"^fixed_image: a NoneType, expected a path, an image of MONAI or nibabel, or an array \(X, Y, Z\) and its",
        ),
        (
            (fixed, (moving[0], moving[1].T)),
            {},
            ValueError,
            "moving_image: the last row of the affine is .* transposed",
        ),
        ((fixed, voxels["moving"]), {}, ValueError, "moving_image: a ndarray, expected a path, an image of"),
        (
            (torch.rand(2, 4, 4), moving),
            {},
            ValueError,
            "fixed_image: a Tensor, expected a path, an image of MONAI",
        ),
        (
            (fixed, (moving[0], np.eye(3))),
            {},
            ValueError,
            r"moving_image: an array of shape \(20, 18, 16\)",
        ),
        ((fixed, (0 * moving[0], moving[1])), {}, ValueError, "moving_image: empty image, every value is 0"),
        ((fixed, moving), {"weights": str(tmp_path / "none.pt")}, FileNotFoundError, "none.pt"),
        (
            (fixed, moving),
            {"weights": str(CONFIGS.parent / "models/model.pt"), "map_pixdim": 1.0},
            ValueError,
            r"^the map networks know a spacing of 1 mm \(map_pixdim\), and the images' is 5 mm \(pixdim\); .* cpu.yaml",
        ),
        (
            (fixed, moving),
            {"weights": str(CONFIGS.parent / "models/model.pt"), "pixdim": 1.0, "downsampling": 1, "map_pixdim": 2.4},
            ValueError,
            r"^the network would see 1 mm \(pixdim x downsampling\), and the weights in models/ know 2.4 mm",
        ),
        ((fixed, moving), {"steps": "3"}, ValueError, "^steps is '3'; expected a whole number, such as 5"),
        ((fixed, moving), {"steps": 2.5}, ValueError, "^steps is 2.5; expected a whole number, such as 5"),
        ((fixed, moving), {"spatial_dims": 4}, ValueError, "^spatial_dims is 4; expected 2 or 3"),
        ((fixed, moving), {"pixdim": (1, 1, 1)}, ValueError, r"^pixdim is \(1, 1, 1\); expected a number, such as 0.8"),
        ((fixed, moving), {"config_file": "none.yaml"}, FileNotFoundError, "configuration not found: none.yaml; give"),
        (
            (fixed, moving),
            {"fixed_label": (np.rint(fixed[0][1:]), fixed[1])},
            ValueError,
            "fixed_label: the label is 19 x 18 x 16 and its image 20 x 18 x 16; give both one grid",
        ),
        ((fixed, whole), {"moving_label": whole}, ValueError, r"moving_label \S+: the file of the image itself"),
        ((fixed, whole), {"moving_mask": tmp_path / "link.nii.gz"}, ValueError, "link.nii.gz: the file of the image"),
    ]
    for images, settings, kind, message in cases:
        with pytest.raises(kind, match=message) as raised:
            register(*images, **{**TINY, **settings})
        assert "\n" not in str(raised.value)


def test_images_in_memory_lie_where_they_say(result, voxels, tmp_path, save_nifti):
    """What ITK's readers keep is LPS, and says so; gradients, devices and the order of bytes do not matter."""
    moving = voxels["moving"], AFFINES["moving"]
    file = save_nifti(tmp_path / "fixed.nii.gz", voxels["fixed"], AFFINES["fixed"])
    ras, lps = (
        register(LoadImage(reader="ITKReader", affine_lps_to_ras=turned, image_only=True)(file), moving, **TINY)
        for turned in (True, False)
    )
    np.testing.assert_allclose(lps.affine, AFFINES["fixed"], atol=1e-5)
    np.testing.assert_allclose(lps.displacement, ras.displacement, atol=1e-3)
    graph = torch.as_tensor(voxels["fixed"]).requires_grad_()
    tensor = MetaTensor(graph[None], affine=torch.as_tensor(AFFINES["fixed"]))
    for other in (
        tensor,
        (graph, torch.as_tensor(AFFINES["fixed"])),
        (voxels["fixed"].astype(">f4"), result.affine),
    ):
        found = register(other, moving, **TINY)
        np.testing.assert_allclose(found.affine, AFFINES["fixed"], atol=1e-4)
        np.testing.assert_allclose(found.displacement, result.displacement, atol=0.01)
    assert register((graph.bfloat16(), AFFINES["fixed"]), moving, **{**TINY, "steps": 0}).warped.shape == SHAPE


class Named:
    """A path of another library."""

    def __init__(self, path):
        self.path = str(path)

    def __fspath__(self):
        return self.path


def test_any_path_is_one(voxels, tmp_path, save_nifti):
    save_nifti(tmp_path / "a.nii.gz", voxels["fixed"], AFFINES["fixed"])
    with os.scandir(tmp_path) as entries:
        paths = [*entries, Named(tmp_path / "a.nii.gz")]
    for path in paths:
        found = register(path, (voxels["moving"], AFFINES["moving"]), **{**TINY, "steps": 0})
        assert found.metrics["pair_id"] == "array_to_a"


def lazily_flipped(image):
    flip = Flip(spatial_axis=0)
    flip.lazy = True
    return flip(MetaTensor(torch.as_tensor(image[0])[None], affine=torch.as_tensor(image[1])))


def lost(path):
    image = nib.load(path)
    Path(path).unlink()
    return image


def test_what_cannot_be_taken_from_memory_is_one_line(voxels, tmp_path, save_nifti):
    fixed, moving = ((voxels[side], AFFINES[side]) for side in ("fixed", "moving"))
    array = "expected a path, an image of MONAI or nibabel, or an array"
    cases = [
        (
            {"moving": lazily_flipped(moving)},
            "^moving_image: a MetaTensor with lazy transforms that are not applied yet",
        ),
        ({"moving": sitk.GetImageFromArray(moving[0].T)}, f"^moving_image: a Image, {array}"),
        ({"moving": ["a.nii.gz", "b.nii.gz"]}, f"^moving_image: a list, {array}"),
        ({"moving": (moving[0], None)}, r"^moving_image: an array of shape \(20, 18, 16\) and an affine of shape \(\)"),
        ({"moving": nib.spatialimages.SpatialImage(moving[0], None)}, "^moving_image: an image of nibabel without an"),
        (
            {"moving": lost(save_nifti(tmp_path / "gone.nii.gz", *moving))},
            "^moving_image: the voxels of its file .*gone.nii.gz cannot be read",
        ),
        ({"moving": ""}, "^moving_image not found: ''$"),
        ({"moving": "a.nii.gz\n"}, r"^moving_image not found: 'a.nii.gz\\n'$"),
        (
            {"fixed_landmarks": np.zeros((3, 3)), "moving_landmarks": "a.csv"},
            "^fixed_landmarks is a ndarray, expected the",
        ),
        (
            {"fixed_landmarks": "a.csv"},
            "^fixed_landmarks without moving_landmarks: a distance is one of points in both",
        ),
    ]
    for given, message in cases:
        with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
            register(**{"fixed": fixed, "moving": moving, **given}, **TINY)
        assert "\n" not in str(raised.value)


def test_presets_follow_the_configuration_of_inference(voxels):
    """As on the command line; alone, they lacked everything else."""
    images = [(voxels[side], AFFINES[side]) for side in ("fixed", "moving")]
    settings = {**TINY, "steps": 0, "weights": None, "channels": 2}
    del settings["regularisation_weight"], settings["downsampling"]
    named, both = (register(*images, config_file=c, **settings) for c in ("cpu.yaml", ["inference.yaml", "cpu.yaml"]))
    assert named.metrics["loss"] == both.metrics["loss"]
    for names, found in (
        ((), ["inference.yaml"]),
        ("cpu.yaml", ["inference.yaml", "cpu.yaml"]),
        (Path("configs/inference_2d.yaml"), ["configs/inference_2d.yaml"]),
        (("cpu.yaml", "inference.json"), ["cpu.yaml", "inference.json"]),
    ):
        assert on_inference(names) == found


def test_a_workflow_is_made_from_any_folder(tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"dataset_dir": str(tiny_dataset), "weights": "$None", "pair_limits::test": 2, "workflow_type": "infer"}
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        workflow = create_workflow("configs/inference.yaml", logging_file=False, **settings)
    assert not [line for line in shown if "parsing config_file" in str(line.message)]
    assert len(workflow.parser.get_parsed_content("dataset").data) == 2
    for name in ("pair_limit::test", "step"):
        with pytest.raises(ValueError, match=rf"unknown option {name}; did you mean \w+s\?; known options are"):
            create_workflow("configs/inference.yaml", **{name: 2})
    with pytest.raises(ValueError, match="^steps is '3'; expected a whole number, such as 5"):
        create_workflow("configs/inference.yaml", steps="3")
    with pytest.raises(FileNotFoundError, match="configuration not found: configs/none.yaml"):
        create_workflow("configs/none.yaml")


def test_none_is_a_value_of_a_workflow():
    """MONAI drops it, and the default weights registered in its place, in silence."""
    workflow = create_workflow("configs/inference.yaml", weights=None, meta_file=None)
    assert workflow.parser.get_parsed_content("weights") is None


def test_the_package_hands_it_on():
    assert bundle.register is register


def test_a_fixed_label_alone_is_told(voxels):
    """It is of no use, which a list said and this did not."""
    fixed, moving = ((voxels[side], AFFINES[side]) for side in ("fixed", "moving"))
    label = ((fixed[0] > fixed[0].mean()).astype(np.uint8), fixed[1])
    with pytest.warns(
        DataWarning, match="^fixed_label without moving_label, which is not used; give both, or neither$"
    ):
        assert "dsc" not in register(fixed, moving, fixed_label=label, **TINY | {"steps": 0}).metrics


@pytest.mark.parametrize(
    "setting",
    [{"output_dir": "out"}, {"transforms": True}, {"dicom": True}, {"section": "test"}, {"pair_limits": {"test": 1}}],
)
def test_settings_of_data_sets_and_of_output_are_not_ignored(setting):
    said = f"register() takes two images: leave out {next(iter(setting))}; save() and save_dicom() write"
    with pytest.raises(ValueError, match=re.escape(said)):
        register(__file__, __file__, **setting)


def test_images_of_one_name_are_two_patients_and_one_file_is_one_as_in_lists(voxels, tmp_path):
    """Within a patient, all channels but the gland are landmarks; between patients, the apex alone."""
    label = np.zeros((*SHAPE, 3), np.uint8)
    label[4:12, 4:12, 4:10], label[5, 5, 5, 1:] = [1, 0, 0], 1
    for side, affine in AFFINES.items():
        (tmp_path / side).mkdir()
        nib.save(nib.Nifti1Image(voxels[side], affine), tmp_path / side / "us.nii")
        nib.save(nib.Nifti1Image(label, affine), tmp_path / side / "label.nii")

    def landmarks(moving):
        names = [(tmp_path / side / "us.nii", tmp_path / side / "label.nii") for side in ("fixed", moving)]
        labels = {"fixed_label": names[0][1], "moving_label": names[1][1]}
        return set(register(names[0][0], names[1][0], **labels, **TINY | {"steps": 0}).metrics["tre_mm"])

    assert landmarks("moving") == {"1"}
    assert landmarks("fixed") == {"1", "2"}
