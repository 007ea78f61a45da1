"""Native outputs: the chain from files to a field that ITK applies, headers, all-or-nothing folders."""

import json
import multiprocessing
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import nn
from toys import affine_ddf, apply, ball, killer, rigid, texture

from bundle.data import SIDES, PreparePair
from bundle.formats import displacement_image
from bundle.geometry import RAS_TO_LPS, centroids, fixed_to_moving, initial_alignment
from bundle.results import NativeOutputsd, SavePaird
from bundle.results.resume import is_finished
from bundle.system import remove_leftovers, whole_folder

itk = pytest.importorskip("itk")


class SmoothField(nn.Module):
    """Predicts a smooth DDF of up to 1.5 voxels whatever the pair."""

    def forward(self, pair):
        size = pair.shape[2:]
        x, y, z = torch.meshgrid(*(torch.linspace(0, 1, n) for n in size), indexing="ij")
        field = [torch.sin(3 * y + z), torch.cos(4 * x) * z, torch.sin(5 * z - 2 * x)]
        return 1.5 * torch.stack(field)[None]


@pytest.fixture
def files(tmp_path, fixed_grid, moving_grid, save_nifti):
    pair = {"pair_id": "a_to_b"}
    for side, grid in (("fixed", fixed_grid), ("moving", moving_grid)):
        label = 7 * grid.ball(grid.centre, 5) + 2 * grid.ball(grid.centre + [7, 0, 0], 2)
        pair[f"{side}_image"] = save_nifti(tmp_path / f"{side}.nii.gz", grid.smooth_image(), grid.affine)
        pair[f"{side}_label"] = save_nifti(tmp_path / f"{side}_label.nii.gz", label, grid.affine)
    return pair


def register(files, content, network, **settings):
    """From files to native outputs as configs/inference.yaml does it, with the network replaced."""
    settings = {"pixdim": 1.3, **settings}
    data = dict(content("inference.yaml", "preprocessing", **settings)(files))
    batch = {key: value[None] for key, value in data.items() if isinstance(value, torch.Tensor)}
    pair, _ = PreparePair()(batch, "cpu")
    ddf = network(pair)[0]
    return NativeOutputsd()({**data, "pred": {"ddf": ddf}, "metrics": {"pair_id": data["pair_id"]}})


def itk_warp(moving, displacement):
    """ITK's own resampling of a file by a displacement file."""
    field = itk.imread(str(displacement), itk.Vector[itk.F, 3])
    image = itk.imread(str(moving), itk.F)
    kinds = (type(image), type(image), type(field))
    warper = itk.WarpImageFilter[kinds].New(Input=image, DisplacementField=field)
    warper.SetOutputParametersFromImage(field)
    warper.Update()
    return itk.array_from_image(warper.GetOutput()).transpose(2, 1, 0)


def sampled_inside(result, margin=0.0):
    """Fixed voxels that come from well inside the moving image."""
    fixed, moving = result["native_fixed_image"], result["native_moving_image"]
    voxels = np.stack(np.meshgrid(*map(np.arange, fixed.shape[1:]), indexing="ij"))
    points = apply(fixed.affine.numpy(), voxels) + result["displacement"].numpy()
    moved = apply(np.linalg.inv(moving.affine.numpy()), points)
    limits = np.reshape(moving.shape[1:], (3, 1, 1, 1)) - 1
    return ((moved >= margin) & (moved <= limits - margin)).all(0)


@pytest.mark.parametrize("mode", ["center", "world", "none"])
def test_itk_applies_the_saved_displacement_and_gets_our_warped_image(files, tmp_path, content, mode):
    result = register(files, content, SmoothField(), initial_alignment=mode)
    SavePaird(tmp_path / "out")(result)
    folder = tmp_path / "out" / "a_to_b"
    ours = nib.load(folder / "warped_image.nii.gz")
    theirs = itk_warp(files["moving_image"], folder / "displacement.nii.gz")
    inside = sampled_inside(result, margin=0.01)
    values = ours.get_fdata()[inside]
    spread = np.ptp(nib.load(files["moving_image"]).get_fdata())
    assert inside.mean() > 0.3
    assert np.ptp(values) > 0.5 * spread
    assert np.abs(values - theirs[inside]).max() < 1e-3 * spread
    not_deformed = result["aligned_image"][0].numpy()[inside]
    assert np.abs(values - not_deformed).mean() > 0.03 * spread


def test_saved_displacement_has_the_header_of_a_vector_field(files, tmp_path, content, fixed_grid):
    SavePaird(tmp_path / "out")(register(files, content, SmoothField()))
    image = nib.load(tmp_path / "out/a_to_b/displacement.nii.gz")
    assert image.shape == (*fixed_grid.shape, 1, 3)
    assert image.get_data_dtype() == np.float32
    assert int(image.header["intent_code"]) == 1007
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
    np.testing.assert_allclose(image.get_sform(), fixed_grid.affine, atol=1e-4)
    # The quaternion of a qform is float32 too.
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_saved_vectors_are_lps(fixed_grid):
    displacement = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1, 1).expand(3, *fixed_grid.shape)
    vectors = displacement_image(displacement, fixed_grid.affine).get_fdata()
    assert vectors[4, 5, 6, 0].tolist() == [-1.0, -2.0, 3.0]


def test_identity_network_gives_the_initial_alignment(files, content, fixed_grid, moving_grid):
    result = register(files, content, lambda pair: torch.zeros(1, 3, *pair.shape[2:]), initial_alignment="center")
    shift = moving_grid.centre - fixed_grid.centre
    np.testing.assert_allclose(
        result["displacement"].numpy(),
        np.broadcast_to(shift.reshape(3, 1, 1, 1), result["displacement"].shape),
        atol=1e-3,
    )
    assert torch.equal(result["warped_image"], result["aligned_image"])


def test_known_rigid_motion_brings_back_the_fixed_image(tmp_path, content, save_nifti, fixed_grid, moving_grid):
    """The moving image shows the fixed scene moved rigidly; the DDF of that motion restores it."""
    motion = rigid((4, -6, 5), moving_grid.centre - fixed_grid.centre, fixed_grid.centre)
    seen = apply(np.linalg.inv(motion), moving_grid.world())
    scene = texture(seen - fixed_grid.centre.reshape(3, 1, 1, 1))
    blob = fixed_grid.centre + [2, 1, -1]
    files = {
        "pair_id": "p",
        "fixed_image": save_nifti(tmp_path / "f.nii", fixed_grid.smooth_image(), fixed_grid.affine),
        "moving_image": save_nifti(tmp_path / "m.nii", scene, moving_grid.affine),
        "moving_label": save_nifti(tmp_path / "l.nii", ball(seen, blob, 4), moving_grid.affine),
    }
    data = dict(content("inference.yaml", "preprocessing", pixdim=1.3)(files))
    network = data["fixed_image"]
    start = initial_alignment("center", fixed_grid.affine, fixed_grid.shape, moving_grid.affine, moving_grid.shape)
    in_voxels = np.linalg.inv(start @ network.affine.numpy()) @ motion @ network.affine.numpy()
    ddf = affine_ddf(in_voxels[:3, :3] - np.eye(3), in_voxels[:3, 3], network.shape[1:])
    result = NativeOutputsd()({**data, "pred": {"ddf": ddf}})
    inside = sampled_inside(result)
    error = np.abs(result["warped_image"][0].numpy() - fixed_grid.smooth_image())[inside]
    before = np.abs(result["aligned_image"][0].numpy() - fixed_grid.smooth_image())[inside]
    assert inside.mean() > 0.4
    # One trilinear interpolation of waves of 4 mm per radian on 1.6 mm voxels misses by up to 2 % of 80.
    assert error.max() < 4
    assert before.max() > 10
    label = result["warped_label"]
    np.testing.assert_allclose(centroids(label.as_tensor(), fixed_grid.affine)[0], blob, atol=0.3)
    moving_centroid = centroids(data["native_moving_label"].as_tensor(), moving_grid.affine)
    mapped = fixed_to_moving(blob[None], result["displacement"].as_tensor(), fixed_grid.affine)
    np.testing.assert_allclose(mapped, moving_centroid, atol=0.2)


def test_label_is_warped_by_the_nearest_voxel_of_the_file(files, tmp_path, content, fixed_grid):
    result = register(files, content, SmoothField())
    assert set(np.unique(result["warped_label"])) == {0, 2, 7}
    SavePaird(tmp_path)(result)
    saved = nib.load(tmp_path / "a_to_b/warped_label.nii.gz")
    assert saved.get_data_dtype() == np.uint8
    assert saved.shape == fixed_grid.shape
    np.testing.assert_array_equal(saved.get_fdata(), result["warped_label"][0])


def test_weights_of_a_small_landmark_move_by_less_than_a_voxel(fixed_grid):
    """A shift of a third of a voxel, which the nearest voxel does not see, moves the centroid by a third."""
    shape = fixed_grid.shape
    label = torch.zeros(2, *shape)
    label[1, 8:10, 7:9, 6:8] = 1
    images = {f"native_{side}_image": MetaTensor(torch.zeros(1, *shape), affine=fixed_grid.affine) for side in SIDES}
    ddf = affine_ddf(np.zeros((3, 3)), [1 / 3, 0, 0], shape)
    data = {
        **images,
        "fixed_image": images["native_fixed_image"],
        "native_moving_label": MetaTensor(label, affine=fixed_grid.affine),
        "initial_alignment": np.eye(4),
        "pred": {"ddf": ddf},
    }
    result = NativeOutputsd()(data)
    aligned, warped = (
        centroids(result[f"{name}_label_weights"].as_tensor()[1:], np.eye(4))[0] for name in ("aligned", "warped")
    )
    np.testing.assert_allclose(warped - aligned, [-1 / 3, 0, 0], atol=1e-4)
    assert torch.equal(result["warped_label"], result["aligned_label"])


def saveable(grid, **changes):
    image, warped, *field = torch.rand(5, *grid.shape, generator=torch.Generator().manual_seed(0))
    data = {
        "pair_id": "p",
        "native_fixed_image": MetaTensor(image[None], affine=grid.affine),
        "warped_image": warped[None],
        "displacement": MetaTensor(torch.stack(field)),
        "metrics": {"loss": [2.0, 1.0]},
    }
    return {**data, **changes}


def test_label_channels_are_saved_as_a_fourth_axis(fixed_grid, tmp_path):
    channels = torch.zeros(2, *fixed_grid.shape)
    channels[1, 3, 4, 5] = 1
    SavePaird(tmp_path)(saveable(fixed_grid, warped_label=channels))
    saved = nib.load(tmp_path / "p/warped_label.nii.gz")
    assert saved.shape == (*fixed_grid.shape, 2)
    assert np.argwhere(saved.get_fdata()).tolist() == [[3, 4, 5, 1]]


@pytest.mark.parametrize(
    "value, dtype", [(255, np.uint8), (3000, np.int16), (-1, np.int16), (40000, np.uint16), (70000, np.int32)]
)
def test_label_values_survive_saving(fixed_grid, tmp_path, value, dtype):
    SavePaird(tmp_path)(saveable(fixed_grid, warped_label=torch.full((1, *fixed_grid.shape), float(value))))
    saved = nib.load(tmp_path / "p/warped_label.nii.gz")
    assert saved.get_data_dtype() == dtype
    assert np.unique(saved.dataobj).tolist() == [value]


def test_a_sheared_affine_is_kept_in_the_sform(fixed_grid, tmp_path):
    sheared = fixed_grid.affine.copy()
    sheared[0, 1] += 0.3
    fixed = MetaTensor(torch.rand(1, *fixed_grid.shape), affine=sheared)
    SavePaird(tmp_path)(saveable(fixed_grid, native_fixed_image=fixed))
    np.testing.assert_allclose(nib.load(tmp_path / "p/warped_image.nii.gz").affine, sheared, atol=1e-5)


def test_saving_again_replaces_the_older_result(fixed_grid, tmp_path):
    SavePaird(tmp_path)(saveable(fixed_grid, picture=b"png"))
    assert (tmp_path / "p/overview.png").read_bytes() == b"png"
    SavePaird(tmp_path)(saveable(fixed_grid, metrics={"loss": [5.0]}))
    assert json.loads((tmp_path / "p/metrics.json").read_text()) == {"loss": [5.0]}
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == [
        "displacement.nii.gz",
        "metrics.json",
        "warped_image.nii.gz",
    ]


@pytest.mark.parametrize("name", ["images", "notes.txt"])
def test_what_is_no_result_of_a_pair_is_not_replaced(fixed_grid, tmp_path, name):
    (tmp_path / "images").mkdir()
    for file in ("images/P00.nii.gz", "notes.txt"):
        (tmp_path / file).write_text("mine")
    with pytest.raises(OSError, match=f"{name}: it is there already and holds no results of a pair; give another name"):
        SavePaird(tmp_path)({**saveable(fixed_grid), "pair_id": name})
    assert (tmp_path / "images/P00.nii.gz").read_text() == (tmp_path / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "notes.txt"]


RECORDED = {"images_at": "there", "images": "those", "thumbnail": "<svg/>"}


def save_until_call(grid, folder, number):
    """Replace a result in a process that dies right before the n-th call that changes a file."""
    deadly = killer(number)
    for module, names in ((os, ("fsync", "unlink", "rmdir")), (Path, ("mkdir", "rename", "write_text"))):
        for name in names:
            setattr(module, name, deadly(getattr(module, name)))
    SavePaird(folder)(saveable(grid, fingerprint="new", **RECORDED))


def test_a_folder_is_whole_or_not_there_at_whatever_call_its_writer_is_killed(fixed_grid, tmp_path):
    context, found = multiprocessing.get_context("fork"), set()
    SavePaird(tmp_path / "whole")(saveable(fixed_grid, fingerprint="new", **RECORDED))
    (whole,) = (tmp_path / "whole").iterdir()
    complete = {path.name: path.read_bytes() for path in whole.iterdir() if path.suffix == ".json"}
    for number in range(1, 100):
        folder = tmp_path / str(number)
        SavePaird(folder)(saveable(fixed_grid, fingerprint="old", **RECORDED))
        process = context.Process(target=save_until_call, args=(fixed_grid, folder, number))
        process.start()
        process.join()
        final = folder / whole.name
        if final.exists():
            assert {path.name for path in final.iterdir()} == {path.name for path in whole.iterdir()}
        found.add("new" if is_finished(final, "new") else "old" if is_finished(final, "old") else "none")
        remove_leftovers(final)
        assert is_finished(final, "new") or is_finished(final, "old")
        assert [path.name for path in folder.iterdir()] == [whole.name]
        SavePaird(folder)(saveable(fixed_grid, fingerprint="new", **RECORDED))
        assert {path.name: path.read_bytes() for path in final.iterdir() if path.suffix == ".json"} == complete
        assert [path.name for path in folder.iterdir()] == [whole.name]
        if process.exitcode == 0:
            break
    assert number > 10
    assert found == {"new", "old", "none"}


@pytest.mark.parametrize("name", ["metrics.json", "displacement.nii.gz", "warped_image.nii.gz"])
def test_results_of_which_a_file_is_cut_short_are_not_finished(fixed_grid, tmp_path, name):
    SavePaird(tmp_path)(saveable(fixed_grid, fingerprint="new", **RECORDED))
    (folder,) = tmp_path.iterdir()
    assert is_finished(folder, "new")
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    assert not is_finished(folder, "new")


def test_results_of_an_earlier_version_are_made_once_more(fixed_grid, tmp_path):
    SavePaird(tmp_path)(saveable(fixed_grid, fingerprint="new", **RECORDED))
    (path,) = tmp_path.glob("*/resume.json")
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "files": list(record["files"])}))
    assert not is_finished(path.parent, "new")


def test_a_full_disk_leaves_nothing_half_written(fixed_grid, tmp_path, monkeypatch):
    def full(image, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib, "save", full)
    with pytest.raises(OSError, match="cannot write the results of pair p to .*No space left on device"):
        SavePaird(tmp_path)(saveable(fixed_grid))
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_that_cannot_be_moved_into_place_leaves_the_older_one(tmp_path, monkeypatch):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/older").touch()
    rename = Path.rename

    def failing(path, target):
        if path.name == ".p.partial":
            raise OSError(122, "Disk quota exceeded")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="Disk quota exceeded"), whole_folder(tmp_path / "p"):
        pass
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["p", "p/older"]


def test_a_folder_that_cannot_be_made_is_named(fixed_grid, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="cannot write the results of pair p to .*file/p"):
        SavePaird(tmp_path / "file")(saveable(fixed_grid))


def test_lps_turns_the_first_two_axes():
    np.testing.assert_array_equal(RAS_TO_LPS @ [1, 2, 3, 1], [-1, -2, 3, 1])
