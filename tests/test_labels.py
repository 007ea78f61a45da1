"""Labels and masks as people have them, through every way in: what their files mean, or one line."""

import json
import re

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image
from toys import Grid
from workflow_fixtures import SMALL

from bundle import register
from bundle.data import check_data, check_labels_alike
from bundle.formats import LoadPaird, in_memory, load_image, save_image, write_transform
from bundle.formats.loading import load_part
from bundle.formats.parts import read_part
from bundle.geometry import Transform, centroids
from bundle.results import apply_transform
from bundle.system import one_line, root_cause
from bundle.system.errors import DataWarning

GRID = Grid(np.array([[4.0, 0, 0, -30], [0, 4.5, 0, 20], [0, 0, 5, 7], [0, 0, 0, 1]]), (16, 14, 12))
BALL = GRID.centre + [9, -4, 6]


def write(path, array, affine=GRID.affine, **header):
    nib.save(nib.Nifti1Image(array, affine, **header), path)
    return path


@pytest.fixture
def files(tmp_path):
    """Images and labels of a pair, all on one grid; the labels are one ball."""
    for side, middle in (("fixed", GRID.centre), ("moving", GRID.centre + 1)):
        write(tmp_path / f"{side}_image.nii.gz", GRID.smooth_image(middle))
        write(tmp_path / f"{side}_label.nii.gz", GRID.ball(BALL, 12))
    return tmp_path


def pair(folder):
    names = [f"{side}_{kind}" for side in ("fixed", "moving") for kind in ("image", "label")]
    return {"pair_id": "p", "patient": ("A", "B"), **{name: str(folder / f"{name}.nii.gz") for name in names}}


def checked(folder, _):
    entry = {key: value for key, value in pair(folder).items() if key != "patient"}
    (folder / "list.json").write_text(json.dumps({"test": [entry]}))
    problems = check_data(folder, "list.json").problems
    if problems:
        raise ValueError("; ".join(problems))


def registered(folder, content):
    return content("inference.yaml", "preprocessing", pixdim=6.0, downsampling=1)(pair(folder))


def trained(folder, content):
    return content("train.yaml", "train::preprocessing", pixdim=6.0, downsampling=1)(pair(folder))


def trained_maps(folder, content):
    entry = {kind: pair(folder)[f"moving_{kind}"] for kind in ("image", "label")}
    return content("maps.yaml", "preprocessing", pixdim=6.0, structures=[1], landmarks=[])(entry)


def registered_from_python(folder, _):
    given = {key: value for key, value in pair(folder).items() if key.endswith(("image", "label"))}
    labels = {key: given[key] for key in ("fixed_label", "moving_label")}
    return register(given["fixed_image"], given["moving_image"], **labels, weights=None, **{**SMALL, "steps": 0})


def applied(folder, _):
    write_transform(Transform([np.eye(4)]), folder / "identity.tfm")
    target = folder / "out.nii.gz"
    options = {"reference": folder / "fixed_image.nii.gz", "label": "nearest"}
    apply_transform(folder / "identity.tfm", [folder / "moving_label.nii.gz"], target, **options)
    return target


WAYS = [checked, registered, trained, trained_maps, registered_from_python, applied]
FLIPPED = GRID.affine @ np.array([[-1, 0, 0, 15], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def fractions(label):
    return np.where(label, 0.5, 0).astype(np.float32)


BAD = {
    "fractions": (
        fractions,
        GRID.affine,
        "the label has fractions (interpolated or scaled?) such as 0.5; labels are whole numbers",
    ),
    "nearly": (
        lambda ball: ball * np.float32(1.002),
        GRID.affine,
        "the label has fractions (interpolated or scaled?) such as 1.002",
    ),
    "not_a_number": (lambda ball: np.where(ball, np.nan, 0), GRID.affine, "the label has NaN or infinite values"),
    "endless": (lambda ball: np.where(ball, np.inf, 0), GRID.affine, "the label has NaN or infinite values"),
    "several_in_a_channel": (
        lambda ball: np.stack([ball, np.arange(ball.size, dtype=np.uint8).reshape(ball.shape) % 3], -1),
        GRID.affine,
        "channel 1 has the values 1 to 2; a label with channels has one structure in each",
    ),
    "elsewhere": (lambda ball: ball, GRID.affine + 3 * np.eye(4, k=3), "the label lies up to 3 mm from its image"),
    "mirrored_header": (
        lambda ball: ball[::-1],
        FLIPPED + 40 * np.eye(4, k=3),
        "the label lies up to ",
    ),
    "another_size": (lambda ball: ball[1:], GRID.affine, "the label is 15 x 14 x 12 and its image 16 x 14 x 12"),
    "empty": (lambda ball: 0 * ball, GRID.affine, "the label is empty, every value is 0; leave it out"),
}
PLACED = {"elsewhere", "mirrored_header", "another_size", "empty"}
"""Bad for the image it belongs to, which ``apply`` is not told."""


@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_refuses_with_the_line_of_the_check(files, content, way):
    for name, (change, affine, words) in BAD.items():
        write(files / "moving_label.nii.gz", change(GRID.ball(BALL, 12)), affine)
        if way is applied and name in PLACED:
            continue
        with pytest.raises((ValueError, RuntimeError)) as failure:
            way(files, content)
        line = one_line(root_cause(failure.value))
        assert f"moving_label.nii.gz: {words}" in line, name


@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_takes_what_a_slope_has_rounded(files, content, way):
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    ball = GRID.ball(BALL, 12) * 1.0
    ball[:2] = 2.99997
    write(files / "moving_label.nii.gz", ball, header=header)
    values = np.unique(nib.load(files / "moving_label.nii.gz").get_fdata())
    assert (values != np.round(values)).any()
    found = way(files, content)
    if way is applied:
        written = nib.load(found)
        assert written.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(written.get_fdata(), np.rint(ball))
    elif way is registered_from_python:
        assert set(np.unique(found.warped_label)) <= {0, 1, 3}
    elif way is registered:
        assert found["structures"] == [1, 3]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("flips", [(0,), (0, 1, 2), ()])
def test_a_label_is_where_its_own_affine_says(files, content, order, flips):
    """TotalSegmentator #31: voxels in another order than the image's, and the affine that belongs to them."""
    ball = GRID.ball(BALL, 12)
    image = nib.Nifti1Image(ball, GRID.affine)
    turn = np.array([(axis, -1 if axis in flips else 1) for axis in order])
    turned = image.as_reoriented(turn)
    nib.save(turned, files / "moving_label.nii.gz")
    checked(files, None)
    loaded = LoadPaird(["moving_image", "moving_label"])({k: v for k, v in pair(files).items() if "moving" in k})
    np.testing.assert_array_equal(loaded["moving_label"][0].numpy(), ball)
    np.testing.assert_allclose(loaded["moving_label"].affine, GRID.affine, atol=1e-5)
    native = registered(files, content)["native_moving_label"]
    np.testing.assert_allclose(centroids(native.as_tensor(), np.asarray(native.affine))[0], BALL, atol=0.5)


@pytest.mark.parametrize(("shift", "said"), [(1.6, 1), (0.1, 0)])
@pytest.mark.parametrize("way", [checked, registered, trained, registered_from_python])
def test_a_label_beside_its_image_by_a_part_of_a_voxel_is_told(files, content, recwarn, way, shift, said):
    """As where one program counts from the corner of a voxel: it was moved onto the image in silence."""
    write(files / "moving_label.nii.gz", GRID.ball(BALL, 12), GRID.affine + shift * np.eye(4, k=3))
    line = f"moving_label.nii.gz: it lies up to {shift:g} mm, a part of a voxel, from its image by their affines"
    try:
        way(files, content)
        told = [str(one.message) for one in recwarn]
    except ValueError as error:  # what a check of the data says
        told = [str(error)]
    assert sum(line in one for one in told) == said


def test_a_mask_is_where_its_own_affine_says(files):
    write(files / "moving_mask.nii.gz", GRID.ball(BALL, 12)[::-1], FLIPPED)
    data = {"moving_image": files / "moving_image.nii.gz", "moving_mask": files / "moving_mask.nii.gz"}
    loaded = LoadPaird(list(data))(data)
    np.testing.assert_array_equal(loaded["moving_mask"][0].numpy(), GRID.ball(BALL, 12))


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha"])
@pytest.mark.parametrize("value", [1, 255, -7, 40000, 614454277, 3 * 10**9, 2**52 + 1])
def test_numbers_of_structures_survive_bit_for_bit(tmp_path, name, value):
    """Structures of the Allen atlas have numbers that single precision does not tell apart."""
    array = np.array([0, value, value - 1]).reshape(3, 1, 1).repeat(2, 1).repeat(2, 2)
    path = str(tmp_path / "in.nrrd")
    sitk.WriteImage(sitk.GetImageFromArray(array.T.astype(np.int64)), path)
    label = load_image(path, "label")
    save_image(label.numpy(), np.eye(4), np.dtype(label.meta["stored_type"]), tmp_path / name)
    read = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / name)))
    np.testing.assert_array_equal(read.T.astype(np.int64), array)
    write_transform(Transform([np.eye(4)]), tmp_path / "identity.tfm")
    apply_transform(tmp_path / "identity.tfm", [path], tmp_path / f"b{name}", reference=path, label="nearest")
    read = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"b{name}")))
    np.testing.assert_array_equal(read.T.astype(np.int64), array)


@pytest.mark.parametrize("kind", ["label", "mask"])
def test_a_background_of_minus_one_is_told(tmp_path, kind):
    """The structure would be background in silence, and the background a structure that overlaps well."""
    ball = GRID.ball(BALL, 12).astype(np.int16)
    write(tmp_path / "a.nii.gz", ball - 1)
    with pytest.warns(DataWarning, match=f"a.nii.gz: the {kind} has negative values such as -1, which count as struct"):
        found = load_image(tmp_path / "a.nii.gz", kind)
    np.testing.assert_array_equal(found[0].numpy(), ball - 1)
    with pytest.warns(DataWarning, match=f"fixed_{kind}: the {kind} has negative values such as -1"):
        load_part(in_memory((ball - 1, GRID.affine), f"fixed_{kind}"), kind, None, f"fixed_{kind}")


def test_numbers_that_no_type_keeps_are_refused(tmp_path):
    nib.save(nib.Nifti1Image(np.full((3, 3, 3), 2**60, np.int64), np.eye(4), dtype=np.int64), tmp_path / "a.nii")
    with pytest.raises(ValueError, match="a.nii: .*1152921504606846976"):
        load_image(tmp_path / "a.nii", "label")


SEGMENTATION = b"""NRRD0004
type: unsigned char
dimension: 4
space: left-posterior-superior
sizes: 2 4 3 2
space directions: none (2,0,0) (0,2,0) (0,0,2)
kinds: list domain domain domain
encoding: raw
space origin: (1,2,3)
Segment0_ID:=Segment_1
Segment0_LabelValue:=1
Segment0_Layer:=0
Segment1_ID:=Segment_2
Segment1_LabelValue:=2
Segment1_Layer:=0
Segment2_ID:=Segment_3
Segment2_LabelValue:=1
Segment2_Layer:=1

"""


def test_segments_that_overlap_are_channels(tmp_path):
    """3D Slicer puts segments that overlap into layers, several of them in one where they do not."""
    layers = np.zeros((2, 3, 4, 2), np.uint8)
    layers[0, 0, 0, 0], layers[0, 1, 1, 0], layers[:, 1, 1, 1] = 1, 2, 1
    (tmp_path / "a.seg.nrrd").write_bytes(SEGMENTATION + layers.tobytes())
    label = load_image(tmp_path / "a.seg.nrrd", "label")
    assert [channel.nonzero().tolist() for channel in label] == [[[0, 0, 0]], [[1, 1, 0]], [[1, 1, 0], [1, 1, 1]]]
    np.testing.assert_allclose(np.asarray(label.affine)[:3, 3], [-1, -2, 3])


def cropped(
    path, label, start, end, axes=(1, 1, 1), shift=0.0, lines=b"Segment0_ID:=Segment_1\nSegment0_LabelValue:=1\n"
):
    """A part of a label on ``GRID``, with some axes in the other direction, as 3D Slicer saves it."""
    part = tuple(slice(first, last) for first, last in zip(start, end, strict=True))
    image = nib.Nifti1Image(label, GRID.affine).slicer[part]
    image = image.as_reoriented(np.stack([range(3), axes], -1))
    lps = np.diag([-1, -1, 1, 1]) @ image.affine
    sizes = " ".join(map(str, image.shape))
    head = f"NRRD0004\ntype: unsigned char\ndimension: 3\nspace: left-posterior-superior\nsizes: {sizes}\n"
    vectors = " ".join(str(tuple(lps[:3, axis].tolist())) for axis in range(3))
    head += f"space directions: {vectors}\nencoding: raw\nspace origin: {tuple((lps[:3, 3] + shift).tolist())}\n"
    voxels = np.asarray(image.dataobj).astype(np.uint8).tobytes(order="F")
    path.write_bytes(head.replace(", ", ",").encode() + lines + b"\n" + voxels)
    return path


@pytest.mark.parametrize("axes", [(1, 1, 1), (-1, 1, -1)])
@pytest.mark.parametrize(("start", "end"), [((3, 0, 2), (16, 9, 11)), ((0, 0, 0), (16, 14, 11))])
def test_a_segmentation_that_was_cropped_gets_the_grid_of_its_image(tmp_path, axes, start, end):
    label = np.zeros(GRID.shape, np.uint8)
    label[3:9, 2:9, 4:11] = 1
    path = cropped(tmp_path / "a.seg.nrrd", label, start, end, axes)
    found = read_part(path, "label", (GRID.shape, GRID.affine))
    np.testing.assert_array_equal(found.channels, label[None])
    np.testing.assert_allclose(found.affine, GRID.affine)


@pytest.mark.parametrize("axes", [(1, 1, 1), (-1, 1, -1)])
def test_a_segmentation_of_a_larger_grid_gets_that_of_its_image(tmp_path, axes):
    """Where all segments lie on the image: what lies beside it would be lost."""
    label = np.zeros(GRID.shape, np.uint8)
    label[3:9, 2:9, 4:11] = 1
    image = nib.Nifti1Image(label, GRID.affine).slicer[2:10, 1:, :11]
    path = cropped(tmp_path / "a.seg.nrrd", label, (0, 0, 2), GRID.shape, axes)
    found = read_part(path, "label", (image.shape, image.affine))
    np.testing.assert_array_equal(found.channels, np.asarray(image.dataobj)[None])
    np.testing.assert_allclose(found.affine, image.affine)
    label[-1] = 1
    path = cropped(tmp_path / "b.seg.nrrd", label, (0, 0, 0), GRID.shape, axes)
    assert read_part(path, "label", (image.shape, image.affine)).channels.shape == (1, *GRID.shape)


@pytest.mark.parametrize("changes", [{"shift": 2.0}, {"lines": b""}])
def test_what_is_no_part_of_the_grid_of_its_image_stays_as_it_is(tmp_path, changes):
    """Half a voxel aside, or no segmentation: a slice may have been cut off without a word to the header."""
    path = cropped(tmp_path / "a.nrrd", np.ones(GRID.shape, np.uint8), (0, 0, 0), (16, 14, 11), **changes)
    assert read_part(path, "label", (GRID.shape, GRID.affine)).channels.shape == (1, 16, 14, 11)


OLD = re.sub(rb"Segment\d_(LabelValue|Layer).*\n", b"", SEGMENTATION).replace(b"Segment2_ID:=Segment_3\n", b"")


def test_segments_of_an_older_3d_slicer_have_a_layer_each(tmp_path):
    layers = np.zeros((2, 3, 4, 2), np.uint8)
    layers[0, 0, 0, 0], layers[:, 1, 1, 1] = 1, 1
    assert b"Layer" not in OLD and b"Segment1_ID" in OLD
    (tmp_path / "a.seg.nrrd").write_bytes(OLD + layers.tobytes())
    label = load_image(tmp_path / "a.seg.nrrd", "label")
    assert [channel.nonzero().tolist() for channel in label] == [[[0, 0, 0]], [[1, 1, 0], [1, 1, 1]]]


@pytest.mark.parametrize(("old", "new"), [(b"Segment2_Layer:=1", b"Segment2_Layer:=5"), (b"Value:=2", b"Value:=x")])
def test_segments_that_are_not_there_are_named(tmp_path, old, new):
    (tmp_path / "a.seg.nrrd").write_bytes(SEGMENTATION.replace(old, new) + bytes(48))
    with pytest.raises(ValueError, match="a.seg.nrrd: its segment . is value . of layer ., and it has 2 layers"):
        load_image(tmp_path / "a.seg.nrrd", "label")


@pytest.mark.parametrize("first", [1, 4])
def test_segments_whose_numbers_do_not_follow_are_all_read(tmp_path, first):
    """A program that deletes a segment may leave the numbers of the others as they are: one was left out in silence."""
    layers = np.zeros((2, 3, 4, 2), np.uint8)
    layers[0, 0, 0, 0], layers[0, 1, 1, 0], layers[:, 1, 1, 1] = 1, 2, 1
    described = SEGMENTATION.replace(b"Segment0_", b"Segment9_").replace(b"Segment1_", b"Segment%d_" % first)
    (tmp_path / "a.seg.nrrd").write_bytes(described + layers.tobytes())
    found = [channel.nonzero().tolist() for channel in load_image(tmp_path / "a.seg.nrrd", "label")]
    whole = [[[0, 0, 0]], [[1, 1, 0]], [[1, 1, 0], [1, 1, 1]]]
    assert sorted(found) == sorted(whole)


NAMED = "Segment0_ID:=A\nSegment0_Name:={0}\nSegment0_LabelValue:=1\n{1}"
OTHER = "Segment1_ID:=B\nSegment1_Name:={0}\nSegment1_LabelValue:={1}\n"
BY_NUMBER = "structures are compared by number: number them alike, or name them in structures.json"


@pytest.mark.parametrize(
    ("fixed", "moving", "said"),
    [
        (("gland", "urethra", 3), ("Gland", "urethra", 2), "urethra is 3 in the fixed label and 2 in the moving label"),
        (("gland", "lesion", 2), ("gland", "urethra", 2), "2 is lesion in the fixed label and urethra in the moving"),
        (("gland", "lesion", 2), ("Gland", "lesion", 2), ""),
        (("Segment_1", "Segment_2", 2), ("gland", "Segment_2", 3), ""),
    ],
)
def test_segments_of_other_names_under_one_number_are_told(files, content, recwarn, fixed, moving, said):
    """3D Slicer numbers segments anew where a patient lacks one: others were compared in silence."""
    entry = pair(files) | {f"{side}_label": str(files / f"{side}.seg.nrrd") for side in ("fixed", "moving")}
    for side, (first, second, value) in (("fixed", fixed), ("moving", moving)):
        label = GRID.ball(BALL, 12)
        label[:2] = value
        lines = NAMED.format(first, OTHER.format(second, value)).encode()
        cropped(files / f"{side}.seg.nrrd", label, (0, 0, 0), GRID.shape, lines=lines)
    (files / "list.json").write_text(json.dumps({"test": [entry]}))
    problems = check_data(files, "list.json").problems
    content("inference.yaml", "preprocessing", pixdim=6.0, downsampling=1)(entry)
    warned = [str(one.message) for one in recwarn if one.category is DataWarning]
    assert len(problems) == len(warned) == bool(said)
    for line in (*problems, *warned):
        assert said in line
        assert line.endswith(BY_NUMBER)


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ({"names": ("gland", "urethra", 3)}, "urethra is 2 in .*a.seg.nrrd and 3 in .*b.seg.nrrd; a network learns"),
        (
            {"names": ("gland", "lesion", 2)},
            "2 is urethra in .*a.seg.nrrd and lesion in .*b.seg.nrrd; a network learns",
        ),
        ({"names": ("gland", "lesion", 2), "structures": {"gland": 1, "urethra": 2}}, ""),
        ({"structures": {"urethra": 1, "gland": 2}}, "gland is 1 in .*a.seg.nrrd and 2 in .*b.seg.nrrd"),
        ({}, ""),
    ],
)
def test_a_map_network_is_told_of_labels_that_number_structures_otherwise(tmp_path, recwarn, others, told):
    """It learns structures by their numbers; others were learned as one, in silence."""
    named = {"a": ("gland", "urethra", 2), "b": others.get("names", ("gland", "urethra", 2))}
    images = [{"label": str(tmp_path / f"{name}.seg.nrrd")} for name in named]
    for name, (first, second, value) in named.items():
        lines = NAMED.format(first, OTHER.format(second, value)).encode()
        label = np.ones(GRID.shape, np.uint8)
        cropped(tmp_path / f"{name}.seg.nrrd", label, (0, 0, 0), GRID.shape, lines=lines)
    images[1] |= {"structures": others["structures"]} if "structures" in others else {}
    check_labels_alike([*images, images[0]])
    warned = [str(one.message) for one in recwarn if one.category is DataWarning]
    assert len(warned) == bool(told)
    assert all(re.search(told, line) for line in warned)


def test_a_map_network_learns_from_labels_of_one_form(tmp_path):
    """Value 1 of a map is the first structure, and channel 1 of another label the second."""
    write(tmp_path / "map.nii", np.ones(GRID.shape, np.uint8))
    write(tmp_path / "channels.nii", np.ones((*GRID.shape, 2), np.uint8))
    images = [{"label": str(tmp_path / f"{name}.nii")} for name in ("map", "channels")]
    for image in images:
        check_labels_alike([image])
    with pytest.raises(
        ValueError, match="map.nii is an integer map and .*channels.nii has channels; give all labels one"
    ):
        check_labels_alike(images)


def test_a_segment_of_one_voxel_is_a_part_of_the_grid_of_its_image(tmp_path):
    label = np.zeros(GRID.shape, np.uint8)
    label[5, 6, 7] = 1
    path = cropped(tmp_path / "a.seg.nrrd", label, (5, 6, 7), (6, 7, 8))
    np.testing.assert_array_equal(read_part(path, "label", (GRID.shape, GRID.affine)).channels, label[None])


@pytest.mark.parametrize("colour", [0, 255])
def test_a_mask_that_is_in_the_transparency_is_refused(tmp_path, colour):
    shown = (np.arange(48).reshape(6, 8) // 24 * 255).astype(np.uint8)
    for name, alpha in (("a.png", shown), ("b.png", np.full_like(shown, 255))):
        grey = np.full_like(shown, colour) if name == "a.png" else shown
        Image.fromarray(np.stack([grey, grey, grey, alpha], -1)).save(tmp_path / name)
    with pytest.raises(ValueError, match="a.png: a mask with transparency that its values do not follow"):
        load_image(tmp_path / "a.png", "mask")
    np.testing.assert_array_equal(load_image(tmp_path / "b.png", "mask")[0, ..., 0].numpy(), shown.T)


def test_a_tiff_whose_compression_changes_values_is_no_label(tmp_path):
    values = np.random.default_rng(0).integers(0, 9, (20, 18)).astype(np.uint8)
    for compression, lossy in (("jpeg", True), ("tiff_lzw", False), ("tiff_adobe_deflate", False)):
        path = tmp_path / f"{compression}.tif"
        Image.fromarray(values).save(path, compression=compression)
        if lossy:
            with pytest.raises(ValueError, match="jpeg.tif: a label in JPEG, whose compression changes values"):
                load_image(path, "label")
        else:
            np.testing.assert_array_equal(load_image(path, "label")[0, ..., 0].numpy(), values.T)


def test_pictures_that_hold_no_values_are_no_labels(tmp_path):
    values = (np.arange(48).reshape(6, 8) // 24).astype(np.uint8)
    Image.fromarray(values).convert("RGB").save(tmp_path / "grey.png")
    np.testing.assert_array_equal(load_image(tmp_path / "grey.png", "label")[0, ..., 0].numpy(), values.T)
    Image.fromarray(np.stack([values, 0 * values, 0 * values], -1)).save(tmp_path / "red.png")
    with pytest.raises(ValueError, match="red.png: a label in colours, expected one number per pixel"):
        load_image(tmp_path / "red.png", "label")
    Image.fromarray(values).save(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="a.jpg: a mask in JPEG, whose compression changes values"):
        load_image(tmp_path / "a.jpg", "mask")
    assert load_image(tmp_path / "a.jpg").shape == load_image(tmp_path / "red.png").shape == (1, 8, 6, 1)


def test_labels_in_memory_are_held_against_the_same_rules(files):
    image = torch.as_tensor(GRID.smooth_image())
    arrays = {"fixed": (image.numpy(), GRID.affine), "moving": (image.numpy(), GRID.affine)}
    settings = {"weights": None, **SMALL, "steps": 0}
    half = (GRID.ball(BALL, 12) * 0.5, GRID.affine)
    with pytest.raises(ValueError, match="moving_label: the label has fractions"):
        register(*arrays.values(), moving_label=half, **settings)
    flipped = nib.Nifti1Image(GRID.ball(BALL, 12)[::-1] * np.int32(70000), FLIPPED)
    found = register(*arrays.values(), moving_label=flipped, **settings)
    np.testing.assert_allclose(centroids(torch.as_tensor(found.warped_label), found.affine)[0], BALL, atol=0.5)
    found.save(files / "out")
    assert nib.load(files / "out/warped_label.nii.gz").get_data_dtype() == np.int32


@pytest.mark.parametrize(("name", "channels"), [("a.png", 2), ("a.png", 3), ("a.png", 4), ("a.tif", 3), ("a.tif", 4)])
@pytest.mark.parametrize("kind", ["image", "label"])
def test_colours_of_16_bits_are_not_cut_to_8(tmp_path, name, channels, kind):
    values = np.arange(48 * channels).reshape(6, 8, channels).astype(np.uint16)
    sitk.WriteImage(sitk.GetImageFromArray(values, isVector=True), str(tmp_path / name))
    with pytest.raises(ValueError, match=f"{name}: .* of 16 bits, expected one number; save it as grey"):
        load_image(tmp_path / name, kind)
    sitk.WriteImage(sitk.GetImageFromArray(values[..., 0]), str(tmp_path / name))
    np.testing.assert_array_equal(load_image(tmp_path / name, kind)[0, ..., 0].numpy(), values[..., 0].T)


@pytest.mark.parametrize("name", ["inference.yaml", "train.yaml"])
def test_a_label_at_the_rim_of_its_image_ends_there(name, content, tmp_path, save_nifti):
    """Repeated to the end of the fixed grid it was five times as large, and so was its way to the other's centroid."""
    generator = np.random.default_rng(0)
    for side, shape, label in (("fixed", (40, 40, 40), (0, 40)), ("moving", (10, 40, 40), (0, 10))):
        block = np.zeros(shape, np.uint8)
        block[slice(*label), 30:, 20:30] = 1
        save_nifti(tmp_path / f"{side}_label.nii.gz", block, np.eye(4))
        save_nifti(tmp_path / f"{side}_image.nii.gz", generator.random(shape, np.float32), np.eye(4))
    small = {"pixdim": 1.0, "downsampling": 1, "initial_alignment": "world", "size_divisor": 32}
    result = content(name, "preprocessing", **small)(pair(tmp_path))
    assert result["fixed_label"].shape == (1, 64, 64, 64)
    assert result["fixed_label"].sum() == pytest.approx(40 * 10 * 10)
    # Interpolation takes nothing from a label on the same grid.
    assert result["moving_label"].sum() == pytest.approx(10 * 10 * 10)
