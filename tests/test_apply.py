"""A saved transform applied to files: the same as ITK, in the direction of each kind of file."""

import json
import re
import warnings

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from test_transforms import waves
from toys import Grid, rigid
from workflow_fixtures import write_dicom_series

from bundle.formats import displacement_image, nifti, write_transform
from bundle.geometry import Transform, centroids
from bundle.results import apply_transform
from bundle.results.apply import warp_label
from bundle.system import DataWarning


@pytest.fixture
def transform(fixed_grid, moving_grid):
    """Up to 4 mm of waves after the centres are aligned and the image is turned a little."""
    motion = rigid((4, -6, 5), moving_grid.centre - fixed_grid.centre, fixed_grid.centre)
    return Transform([waves(fixed_grid, 2.5), motion])


@pytest.fixture
def pair(tmp_path, fixed_grid, moving_grid, transform, save_nifti):
    """Files of a fixed and a moving image, and the transform in two formats."""
    save_nifti(tmp_path / "fixed.nii.gz", fixed_grid.smooth_image(), fixed_grid.affine)
    save_nifti(tmp_path / "moving.nii.gz", moving_grid.smooth_image(), moving_grid.affine)
    label = 7 * moving_grid.ball(moving_grid.centre, 5) + 2 * moving_grid.ball(moving_grid.centre + [8, 0, 0], 2.5)
    save_nifti(tmp_path / "label.nii.gz", label, moving_grid.affine)
    write_transform(transform, tmp_path / "transform.h5")
    field = transform.displacement_on(fixed_grid.affine, fixed_grid.shape)
    nib.save(displacement_image(field, fixed_grid.affine), tmp_path / "displacement.nii.gz")
    return tmp_path


def itk_resampled(folder, moving, nearest=False):
    """ITK's own resampling of a file onto the fixed image by the composite transform, ``(X, Y, Z)``."""
    image = itk.imread(str(folder / moving), itk.F)
    reference = itk.imread(str(folder / "fixed.nii.gz"), itk.F)
    transform = itk.down_cast(itk.transformread(str(folder / "transform.h5"))[0])
    kind = itk.NearestNeighborInterpolateImageFunction if nearest else itk.LinearInterpolateImageFunction
    result = itk.resample_image_filter(
        image, transform=transform, interpolator=kind.New(image), reference_image=reference, use_reference_image=True
    )
    return itk.array_from_image(result).transpose(2, 1, 0)


@pytest.mark.parametrize(("step", "said"), [(2.5, ["2.5"]), (1, []), (0, [])])
def test_a_repetition_time_that_is_lost_is_told(pair, moving_grid, step, said):
    volumes = np.stack([moving_grid.smooth_image()] * 2, axis=-1)
    image = nib.Nifti1Image(volumes, moving_grid.affine)
    image.header["pixdim"][4] = step
    nib.save(image, pair / "series.nii")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", DataWarning)
        apply_transform(pair / "transform.h5", [pair / "series.nii"], pair / "out.nii", reference=pair / "fixed.nii.gz")
    lost = [str(one.message) for one in told if "from volume to volume" in str(one.message)]
    assert [re.search(r"series.nii: the step .+, (\S+), is not kept", line)[1] for line in lost] == said


def test_names_of_segments_that_are_lost_are_told(pair):
    image = itk.imread(str(pair / "moving.nii.gz"), itk.UC)
    for key, value in {"ID": "Segment_1", "Name": "gland", "LabelValue": "1", "Layer": "0"}.items():
        image.GetMetaDataDictionary()[f"Segment0_{key}"] = value
    itk.imwrite(image, str(pair / "moving.seg.nrrd"))
    with pytest.warns(
        DataWarning, match=r'moving.seg.nrrd: what its segments are called, \{"1": "gland"\}, is not kept'
    ):
        apply_transform(
            pair / "transform.h5",
            [pair / "moving.seg.nrrd"],
            pair / "out.nii.gz",
            reference=pair / "fixed.nii.gz",
            label="nearest",
        )


@pytest.mark.parametrize("file", ["transform.h5", "displacement.nii.gz"])
def test_images_are_resampled_as_itk_does_it(pair, file):
    (line,) = apply_transform(
        pair / file, [pair / "moving.nii.gz"], pair / "out.nii.gz", reference=pair / "fixed.nii.gz"
    )
    ours, theirs = nib.load(pair / "out.nii.gz").get_fdata(), itk_resampled(pair, "moving.nii.gz")
    assert (theirs != 0).mean() > 0.5
    assert np.abs(ours - theirs).max() < 1e-4 * np.ptp(theirs)
    assert line.endswith("out.nii.gz: 17 x 21 x 14, float32")
    np.testing.assert_allclose(nib.load(pair / "out.nii.gz").affine, nib.load(pair / "fixed.nii.gz").affine)


def test_labels_are_resampled_as_itk_does_it(pair):
    options = {"reference": pair / "fixed.nii.gz", "label": "nearest"}
    apply_transform(pair / "transform.h5", [pair / "label.nii.gz"], pair / "out.nii.gz", **options)
    ours = nib.load(pair / "out.nii.gz")
    theirs = itk_resampled(pair, "label.nii.gz", nearest=True)
    assert ours.get_data_dtype() == np.uint8
    assert set(np.unique(ours.dataobj)) == {0, 2, 7}
    # A point between two voxels goes to either by the last digit of single precision.
    assert (ours.get_fdata() != theirs).sum() <= 2


def test_a_label_that_is_interpolated_as_an_image_is_told(pair, recwarn):
    """The border between 7 and 0 became 2, another structure, in silence."""
    for name, label in (("label.nii.gz", None), ("label.nii.gz", "nearest"), ("moving.nii.gz", None)):
        apply_transform(
            pair / "transform.h5", [pair / name], pair / "out.nii.gz", reference=pair / "fixed.nii.gz", label=label
        )
    (said,) = [str(one.message) for one in recwarn if one.category is DataWarning]
    assert said.endswith(
        "its values are 0, 2, 7, as those of a label, and interpolation makes others; --label keeps them"
    )


def test_gaussian_labels_keep_their_values_and_places(pair, fixed_grid):
    outputs = {}
    for mode in ("nearest", "gaussian"):
        options = {"reference": pair / "fixed.nii.gz", "label": mode}
        apply_transform(pair / "transform.h5", [pair / "label.nii.gz"], pair / f"{mode}.nii.gz", **options)
        outputs[mode] = nib.load(pair / f"{mode}.nii.gz").get_fdata()
    assert set(np.unique(outputs["gaussian"])) <= {0, 2, 7}
    for value in (2, 7):
        masks = [torch.as_tensor(label == value).float()[None] for label in outputs.values()]
        places = [centroids(mask, fixed_grid.affine)[0] for mask in masks]
        np.testing.assert_allclose(places[1], places[0], atol=0.3)
        # A ball of three voxels across loses its outermost ones to smoothing.
        assert (0.5 if value == 2 else 0.9) < masks[1].sum() / masks[0].sum() < 1.1
    overlap = 2 * ((outputs["nearest"] == 7) & (outputs["gaussian"] == 7)).sum()
    assert overlap / sum((label == 7).sum() for label in outputs.values()) > 0.9


@pytest.mark.parametrize(
    ("wall", "expected"),
    [(slice(10, 20), [0, 0, 0, 0, 3, 3, 3, 0, 0, 0]), (slice(15, 16), [0] * 10)],
    ids=["three voxels", "a third of a voxel"],
)
def test_a_wall_wins_the_voxels_of_which_it_has_most(tmp_path, save_nifti, wall, expected):
    """The nearest voxel would hit the thin wall, by chance."""
    label = np.zeros((30, 30, 30), np.uint8)
    label[:, :, wall] = 3
    save_nifti(tmp_path / "label.nii", label, np.diag([1.0, 1, 1, 1]))
    save_nifti(tmp_path / "reference.nii", np.zeros((10, 10, 10), np.float32), np.diag([3.0, 3, 3, 1]))
    write_transform(Transform([np.eye(4)]), tmp_path / "t.tfm")
    options = {"reference": tmp_path / "reference.nii", "label": "gaussian"}
    apply_transform(tmp_path / "t.tfm", [tmp_path / "label.nii"], tmp_path / "out.nii", **options)
    profile = nib.load(tmp_path / "out.nii").get_fdata()[5, 5]
    assert profile.tolist() == expected


@pytest.mark.parametrize("turn", [np.eye(4), rigid((0, 0, 30), [0, 0, 0], [0, 0, 0])], ids=["along", "turned"])
def test_thick_slices_do_not_smooth_within_the_slice(turn):
    """A rod of 3 mm radius along slices of 5 mm: it lost six of seven voxels to a Gaussian of the slice's thickness."""
    affine = np.diag([0.7, 0.7, 5, 1])
    affine[:2, 3] = -0.7 * 20
    rod = np.hypot(*np.meshgrid(*[0.7 * (np.arange(41) - 20)] * 2, indexing="ij")) <= 3
    label = torch.as_tensor(np.repeat(rod[..., None], 5, axis=2).astype(np.float32))[None]
    field = torch.zeros(3, 41, 41, 5)
    found = warp_label(label, affine, field, turn @ affine, "gaussian")
    assert found.sum() == pytest.approx(float(label.sum()), rel=0.1)  # its rim is on other voxels


def test_four_dimensional_images_and_labels_of_channels(pair, moving_grid, save_nifti):
    frames = np.stack([moving_grid.smooth_image(), 2 * moving_grid.smooth_image()], axis=-1).astype(np.int16)
    save_nifti(pair / "frames.nii.gz", frames, moving_grid.affine, qform=False)
    masks = np.stack([moving_grid.ball(moving_grid.centre, size) for size in (5, 3)], axis=-1)
    save_nifti(pair / "masks.nii.gz", masks, moving_grid.affine, qform=False)
    reference = pair / "fixed.nii.gz"
    (line,) = apply_transform(pair / "transform.h5", [pair / "frames.nii.gz"], pair / "f.nii.gz", reference=reference)
    image = nib.load(pair / "f.nii.gz")
    assert (image.shape, image.get_data_dtype()) == ((17, 21, 14, 2), np.int16)
    assert line.endswith("2 x 17 x 21 x 14, int16")
    apply_transform(pair / "transform.h5", [pair / "moving.nii.gz"], pair / "m.nii.gz", reference=reference)
    single = nib.load(pair / "m.nii.gz").get_fdata()
    assert np.abs(image.get_fdata()[..., 0] - single).max() <= 1.5
    assert np.abs(image.get_fdata()[..., 1] - 2 * single).max() <= 2.5
    save_nifti(pair / "bytes.nii.gz", (masks * [255, 2]).astype(np.uint8), moving_grid.affine, qform=False)
    for mode in ("nearest", "gaussian"):
        options = {"reference": reference, "label": mode}
        apply_transform(pair / "transform.h5", [pair / "masks.nii.gz"], pair / "l.nii.gz", **options)
        found = nib.load(pair / "l.nii.gz").get_fdata()
        assert set(np.unique(found)) == {0, 1}
        assert (found[..., 0] >= found[..., 1]).all()
        # A structure may have any number in its channel.
        apply_transform(pair / "transform.h5", [pair / "bytes.nii.gz"], pair / "b.nii.gz", **options)
        np.testing.assert_array_equal(nib.load(pair / "b.nii.gz").get_fdata(), found * [255, 2])


def test_the_inverse_brings_fixed_images_to_the_moving_one(pair, fixed_grid, moving_grid, transform):
    options = {"reference": pair / "moving.nii.gz", "inverse": True}
    apply_transform(pair / "displacement.nii.gz", [pair / "fixed.nii.gz"], pair / "back.nii.gz", **options)
    back = nib.load(pair / "back.nii.gz")
    np.testing.assert_allclose(back.affine, moving_grid.affine, atol=1e-4)
    voxel = np.array([11, 8, 9])
    world = torch.as_tensor((moving_grid.affine @ [*voxel, 1])[:3, None])
    source = transform.inverse_at(world)[:, 0].numpy()
    image = fixed_grid.smooth_image()
    expected = image[tuple(np.rint(np.linalg.inv(fixed_grid.affine) @ [*source, 1])[:3].astype(int))]
    assert abs(back.get_fdata()[tuple(voxel)] - expected) < 0.15 * np.ptp(image)
    # There and back is where it was, but for two interpolations.
    apply_transform(
        pair / "displacement.nii.gz", [pair / "back.nii.gz"], pair / "again.nii.gz", reference=pair / "fixed.nii.gz"
    )
    again = nib.load(pair / "again.nii.gz").get_fdata()
    core = (slice(5, -5),) * 3
    assert np.abs(again - image)[core].mean() < 0.05 * np.ptp(image)


def test_points_move_to_where_the_warped_label_is(pair, moving_grid, fixed_grid):
    centre = moving_grid.centre + [8, 0, 0]
    (pair / "points.csv").write_text("x,y,z,name\n" + ",".join(map(str, centre)) + ",tumour\n")
    (line,) = apply_transform(pair / "displacement.nii.gz", [pair / "points.csv"], pair / "moved.csv")
    header, row = (pair / "moved.csv").read_text().splitlines()
    assert (header, row.split(",")[3:]) == ("x,y,z,name,outside", ["tumour", "0"])
    assert line.endswith("moved.csv: 1 points")
    moved = np.array(row.split(",")[:3], dtype=float)
    options = {"reference": pair / "fixed.nii.gz", "label": "nearest"}
    apply_transform(pair / "displacement.nii.gz", [pair / "label.nii.gz"], pair / "warped.nii.gz", **options)
    warped = torch.as_tensor(nib.load(pair / "warped.nii.gz").get_fdata() == 2).float()[None]
    assert np.linalg.norm(moved - centre) > 5
    # A ball of 2.5 mm is some 30 voxels: its centroid is good to a third of a voxel.
    np.testing.assert_allclose(moved, centroids(warped, fixed_grid.affine)[0], atol=0.5)


def test_the_inverse_takes_points_of_the_fixed_image_to_the_moving_one(pair, fixed_grid, transform):
    (pair / "points.csv").write_text("x,y,z\n" + ",".join(map(str, fixed_grid.centre)) + "\n")
    apply_transform(pair / "transform.h5", [pair / "points.csv"], pair / "moved.csv", inverse=True)
    moved = [float(value) for value in (pair / "moved.csv").read_text().splitlines()[1].split(",")[:3]]
    np.testing.assert_allclose(moved, transform(torch.as_tensor(fixed_grid.centre[:, None]))[:, 0], atol=1e-4)


def test_points_outside_are_kept_and_flagged(pair, moving_grid):
    rows = [moving_grid.centre, moving_grid.centre + [400, 0, 0], moving_grid.centre + 1]
    control = [{"id": str(k), "position": [-x, -y, z]} for k, (x, y, z) in enumerate(rows)]
    markups = {"markups": [{"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": control}]}
    (pair / "points.mrk.json").write_text(json.dumps(markups))
    (line,) = apply_transform(pair / "transform.h5", [pair / "points.mrk.json"], pair / "moved.mrk.json")
    assert line.endswith("3 points, 1 of them outside the volume of the transform (number 2)")
    moved = json.loads((pair / "moved.mrk.json").read_text())["markups"][0]["controlPoints"]
    assert ["outside" in point.get("description", "") for point in moved] == [False, True, False]
    assert all(np.isfinite(point["position"]).all() for point in moved)


def test_a_surface_moves_as_its_vertices(pair, moving_grid, transform):
    corners = moving_grid.centre + np.array([[0, 0, 0], [4, 0, 0], [0, 4, 0]])
    lps = corners * [-1, -1, 1]
    text = "# vtk DataFile Version 4.2\nmesh\nASCII\nDATASET POLYDATA\nPOINTS 3 double\n"
    text += "\n".join(" ".join(map(str, point)) for point in lps) + "\nPOLYGONS 1 4\n3 0 1 2\n"
    (pair / "mesh.vtk").write_text(text)
    apply_transform(pair / "transform.h5", [pair / "mesh.vtk"], pair / "moved.vtk")
    mesh = itk.meshread(str(pair / "moved.vtk"))
    found = np.array([list(mesh.GetPoint(k)) for k in range(3)]) * [-1, -1, 1]
    np.testing.assert_allclose(found, transform.inverse_at(torch.as_tensor(corners.T)).T, atol=0.01)


def test_voxels_of_the_moving_image_become_voxels_of_the_reference(tmp_path, transform, pair, moving_grid, fixed_grid):
    (pair / "points.csv").write_text("i,j,k\n11,8,9\n")
    grids = {"moving_grid": pair / "moving.nii.gz", "reference": pair / "fixed.nii.gz"}
    apply_transform(pair / "transform.h5", [pair / "points.csv"], pair / "moved.csv", **grids)
    moved = [float(value) for value in (pair / "moved.csv").read_text().splitlines()[1].split(",")[:3]]
    world = torch.as_tensor((moving_grid.affine @ [11, 8, 9, 1])[:3, None])
    expected = np.linalg.inv(fixed_grid.affine) @ [*transform.inverse_at(world)[:, 0], 1]
    np.testing.assert_allclose(moved, expected[:3], atol=0.01)


def test_several_files_go_into_a_folder_under_their_names(pair):
    (pair / "points.csv").write_text("x,y,z\n1,2,3\n")
    files = [pair / "moving.nii.gz", pair / "points.csv"]
    lines = apply_transform(pair / "transform.h5", files, pair / "out", reference=pair / "fixed.nii.gz")
    assert sorted(path.name for path in (pair / "out").iterdir()) == ["moving.nii.gz", "points.csv"]
    assert len(lines) == 2


def test_a_folder_of_dicom_becomes_nifti(pair):
    grid = Grid(np.diag([-1.0, -1.0, 1.0, 1.0]), (12, 10, 8))
    series = pair / "series"
    voxels = (np.arange(960).reshape(grid.shape) % 300).astype(np.int16)
    write_dicom_series(series, itk.image_from_array(np.ascontiguousarray(voxels.transpose(2, 1, 0))))
    write_transform(Transform([np.eye(4)]), pair / "identity.tfm")
    apply_transform(pair / "identity.tfm", [series], pair / "out.nii.gz", reference=series)
    found = nib.load(pair / "out.nii.gz")
    np.testing.assert_allclose(found.affine, grid.affine, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(found.dataobj), voxels)


def test_pictures_stay_pictures(tmp_path):
    pixels = (np.arange(48).reshape(6, 8) * 5).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    field = torch.zeros(3, 8, 6, 1)
    field[0] = 1
    nib.save(displacement_image(field, np.eye(4)), tmp_path / "displacement.nii.gz")
    apply_transform(
        tmp_path / "displacement.nii.gz", [tmp_path / "a.png"], tmp_path / "b.png", reference=tmp_path / "a.png"
    )
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png"))[:, :-1], pixels[:, 1:])
    (tmp_path / "p.csv").write_text("row,col\n2,3\n")
    grids = {"moving_grid": tmp_path / "a.png", "reference": tmp_path / "a.png"}
    apply_transform(tmp_path / "displacement.nii.gz", [tmp_path / "p.csv"], tmp_path / "q.csv", **grids)
    assert (tmp_path / "q.csv").read_text() == "row,col,outside\n2.0,2.0,0\n"


@pytest.mark.parametrize("affine", [np.diag([1.5, 1.5, 1.5, 1.0]), np.diag([-1.0, 1.0, 1.0, 1.0])])
def test_a_transform_that_ends_within_the_reference_is_refused(pair, affine):
    nib.save(nifti(np.zeros((40, 40, 40), np.float32), affine), pair / "wide.nii.gz")
    with pytest.raises(ValueError, match=r"the grid of the transform covers [\d.]+ % of the reference"):
        apply_transform(
            pair / "transform.h5", [pair / "moving.nii.gz"], pair / "out.nii.gz", reference=pair / "wide.nii.gz"
        )
    assert not (pair / "out.nii.gz").exists()


def test_a_reference_of_other_spacing_over_the_same_extent_is_covered(pair, fixed_grid):
    finer = fixed_grid.affine @ np.diag([0.5, 0.5, 0.5, 1.0])
    finer[:3, 3] = (fixed_grid.affine @ [-0.25, -0.25, -0.25, 1])[:3]
    shape = tuple(2 * size for size in fixed_grid.shape)
    nib.save(nifti(np.zeros(shape, np.float32), finer), pair / "finer.nii.gz")
    apply_transform(
        pair / "transform.h5", [pair / "moving.nii.gz"], pair / "out.nii.gz", reference=pair / "finer.nii.gz"
    )
    assert nib.load(pair / "out.nii.gz").shape == shape


def test_an_inverse_without_overlap_is_refused(pair):
    far = np.eye(4)
    far[:3, 3] = 5000
    nib.save(nifti(np.zeros((4, 4, 4), np.float32), far), pair / "far.nii.gz")
    with pytest.raises(ValueError, match="covers 0 % of the reference"):
        apply_transform(
            pair / "transform.h5",
            [pair / "fixed.nii.gz"],
            pair / "out.nii.gz",
            reference=pair / "far.nii.gz",
            inverse=True,
        )


def test_an_image_that_the_transform_does_not_reach_is_refused(pair, moving_grid, save_nifti):
    options = {"reference": pair / "fixed.nii.gz"}
    for shift, reached in ((10, True), (500, False)):
        affine = moving_grid.affine.copy()
        affine[0, 3] += shift
        save_nifti(pair / "elsewhere.nii.gz", moving_grid.smooth_image(), affine)
        (pair / "out.nii.gz").unlink(missing_ok=True)
        if reached:
            apply_transform(pair / "transform.h5", [pair / "elsewhere.nii.gz"], pair / "out.nii.gz", **options)
        else:
            with pytest.raises(ValueError, match="elsewhere.nii.gz: no voxel of the reference comes from within it by"):
                apply_transform(pair / "transform.h5", [pair / "elsewhere.nii.gz"], pair / "out.nii.gz", **options)
        assert (pair / "out.nii.gz").exists() == reached


def test_bad_input_is_refused_before_anything_is_written(pair):
    (pair / "text.nii.gz").write_text("no image")
    (pair / "p.ply").write_text("ply")
    (pair / "lost.nii.gz").symlink_to(pair / "nowhere")
    (pair / "p.csv").write_text("i,j,k\n1,2,3\n")
    good = {"transform": "transform.h5", "moving": ["moving.nii.gz"], "output": "o.nii.gz", "reference": "fixed.nii.gz"}
    cases = [
        ({"moving": ["missing.nii.gz"]}, "not found: .*missing.nii.gz"),
        ({"moving": ["MOVING.nii.gz"]}, "not found: .*MOVING.nii.gz; there is 'moving.nii.gz', spelt otherwise"),
        (
            {"transform": "Transform.h5"},
            "transform not found: .*Transform.h5; there is 'transform.h5', spelt otherwise",
        ),
        ({"reference": "lost.nii.gz"}, "image not found: .*lost.nii.gz; a link that leads nowhere; get its content"),
        ({"moving": []}, "not found: no file was given"),
        ({"reference": None}, "moving.nii.gz needs a reference: the image whose grid it should get"),
        ({"reference": "missing.nii.gz"}, "image not found: .*missing.nii.gz"),
        ({"reference": "text.nii.gz"}, "text.nii.gz: cannot be read, damaged or not an image"),
        ({"moving": ["text.nii.gz"]}, "text.nii.gz: cannot be read, damaged or not an image"),
        ({"transform": "moving.nii.gz"}, "moving.nii.gz: not a transform"),
        ({"label": "linear"}, "label is 'linear'; expected nearest or gaussian"),
        ({"output": "o.docx"}, "o.docx: not a format that images are written in; supported are .nii"),
        ({"output": "moving.nii.gz"}, "moving.nii.gz is the moving file itself; give another output"),
        ({"output": "fixed.nii.gz"}, "fixed.nii.gz is the reference itself; give another output"),
        (
            {"transform": "displacement.nii.gz", "output": "displacement.nii.gz"},
            "displacement.nii.gz is the transform itself; give another output",
        ),
        (
            {"moving": ["moving.nii.gz", "label.nii.gz"], "output": "both.nii.gz"},
            "both.nii.gz is a file by its name; the results of 2 files go into a folder",
        ),
        (
            {"moving": ["moving.nii.gz", "label.nii.gz"], "output": "p.csv"},
            "p.csv is a file; the results of 2",
        ),
        ({"moving": ["p.csv"], "output": "q.csv"}, "p.csv: .*voxels"),
        (
            {"moving": ["p.csv"], "output": "q.csv", "moving_grid": "moving.nii.gz", "reference": None},
            "moving_grid needs a reference: the image in whose voxels moved points are written",
        ),
        (
            {"moving": ["p.ply"], "output": "q.ply"},
            "q.ply: not a format .*; points and surfaces are read from CSV .*STL",
        ),
    ]
    before = sorted(path.name for path in pair.iterdir())
    for changes, message in cases:
        call = {**good, **changes}
        for key in ("transform", "output", "reference", "moving_grid"):
            call[key] = call.get(key) and pair / call[key]
        call["moving"] = [pair / name for name in call["moving"]]
        with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
            apply_transform(**call)
        assert "\n" not in str(raised.value)
    assert sorted(path.name for path in pair.iterdir()) == before


def test_a_name_that_ends_in_a_slash_is_a_folder_and_the_folder_of_a_pair_its_transform(pair):
    (line,) = apply_transform(pair, [pair / "label.nii.gz"], f"{pair}/new/", pair / "fixed.nii.gz", label="nearest")
    assert line.startswith(f"{pair}/label.nii.gz -> {pair}/new/label.nii.gz: ")
    apply_transform(
        pair / "displacement.nii.gz", [pair / "label.nii.gz"], pair / "b.nii.gz", pair / "fixed.nii.gz", label="nearest"
    )
    ours, theirs = (nib.load(pair / name).get_fdata() for name in ("new/label.nii.gz", "b.nii.gz"))
    np.testing.assert_array_equal(ours, theirs)
