"""Transforms in files: what ITK reads is what we mean, and what ITK writes is what we read."""

import contextlib
import struct

import itk
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from test_transforms import inner_points, waves
from toys import Grid, rigid

from bundle.formats import displacement_image, read_transform, write_transform
from bundle.geometry import Displacement, Transform
from bundle.system.errors import DataWarning
from bundle.system.limits import HDF5_STRING, HDF5_UNREAD


def itk_points(path, points):
    """Points ``(3, n)``, RAS, as ITK's own transform of a file moves them."""
    transform = itk.down_cast(itk.transformread(str(path))[0])
    moved = [transform.TransformPoint([-x, -y, z]) for x, y, z in points.T.tolist()]
    return (np.array([list(point) for point in moved]) * [-1, -1, 1]).T


@pytest.fixture
def motion(fixed_grid):
    return rigid((5, 10, -20), [1, 2, 3], fixed_grid.centre) @ np.diag([1.1, 1.0, -0.9, 1.0])


def test_itk_moves_points_as_our_composite_does(fixed_grid, motion, tmp_path):
    transform = Transform([motion, waves(Grid(motion @ fixed_grid.affine, fixed_grid.shape)), motion])
    write_transform(transform, tmp_path / "a.h5")
    points = inner_points(fixed_grid)
    assert (transform(points) - points).norm(dim=0).min() > 1
    np.testing.assert_allclose(itk_points(tmp_path / "a.h5", points), transform(points), atol=1e-6)
    read = read_transform(tmp_path / "a.h5")
    np.testing.assert_allclose(read(points), transform(points), atol=1e-9)
    assert [isinstance(part, Displacement) for part in read.parts] == [False, True, False]


@pytest.mark.parametrize("name", ["A.TFM", "a.Txt", "A.MAT", "A.H5"])
def test_a_suffix_in_capitals_is_read(motion, tmp_path, name):
    write_transform(Transform([motion]), tmp_path / "a.tfm")
    itk.transformwrite(itk.transformread(str(tmp_path / "a.tfm")), str(tmp_path / name.lower()))
    (tmp_path / name.lower()).rename(tmp_path / name)
    np.testing.assert_allclose(read_transform(tmp_path / name).affine_part(), motion, atol=1e-6)


@pytest.mark.parametrize("name", ["A.TFM", "a.Txt", "A.H5"])
def test_a_suffix_in_capitals_is_written(motion, tmp_path, name):
    write_transform(Transform([motion]), tmp_path / name)
    np.testing.assert_allclose(read_transform(tmp_path / name).affine_part(), motion, atol=1e-6)


@pytest.mark.parametrize("name", ["a.tfm", "a.txt", "a.h5"])
def test_itk_moves_points_as_our_affine_does(fixed_grid, motion, tmp_path, name):
    transform = Transform([motion, motion])
    write_transform(transform, tmp_path / name)
    points = inner_points(fixed_grid)
    np.testing.assert_allclose(itk_points(tmp_path / name, points), transform(points), atol=1e-6)
    read = read_transform(tmp_path / name)
    assert read.is_affine
    np.testing.assert_allclose(read(points), transform(points), atol=1e-9)


def test_a_field_with_displacements_is_no_text_file(fixed_grid, tmp_path):
    with pytest.raises(ValueError, match="a.tfm: a transform with a displacement field is written as .h5"):
        write_transform(Transform([waves(fixed_grid)]), tmp_path / "a.tfm")
    with pytest.raises(ValueError, match="a.json: an affine is written as .h5 or .tfm or .txt"):
        write_transform(Transform([np.eye(4)]), tmp_path / "a.json")


def test_a_sheared_grid_keeps_its_place(fixed_grid, tmp_path):
    sheared = fixed_grid.affine.copy()
    sheared[0, 1] += 0.3
    transform = Transform([waves(Grid(sheared, fixed_grid.shape))])
    write_transform(transform, tmp_path / "a.h5")
    points = inner_points(fixed_grid, margin=0.35)
    np.testing.assert_allclose(itk_points(tmp_path / "a.h5", points), transform(points), atol=1e-6)
    np.testing.assert_allclose(read_transform(tmp_path / "a.h5")(points), transform(points), atol=1e-6)


def test_our_displacement_file_is_read(fixed_grid, tmp_path):
    field = waves(fixed_grid)
    nib.save(displacement_image(field.field, fixed_grid.affine), tmp_path / "displacement.nii.gz")
    points = inner_points(fixed_grid)
    np.testing.assert_allclose(read_transform(tmp_path / "displacement.nii.gz")(points), field(points), atol=1e-4)


def itk_field(field):
    """ITK's image of the vectors of a displacement, LPS."""
    vectors = np.ascontiguousarray((field.field.numpy() * np.reshape([-1, -1, 1], (3, 1, 1, 1))).transpose(3, 2, 1, 0))
    image = itk.image_from_array(vectors.astype(np.float32), ttype=itk.Image[itk.Vector[itk.F, 3], 3])
    lps = np.diag([-1, -1, 1, 1]) @ field.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / spacing)))
    return image


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha"])
@pytest.mark.parametrize("size", [14, 1])
def test_fields_that_itk_writes_are_read(fixed_grid, tmp_path, name, size):
    grid = Grid(fixed_grid.affine, (*fixed_grid.shape[:2], size))
    field = waves(grid)
    itk.imwrite(itk_field(field), str(tmp_path / name))
    points = inner_points(grid)
    np.testing.assert_allclose(read_transform(tmp_path / name)(points), field(points), atol=1e-4)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_a_field_between_worlds_that_are_far_apart_keeps_its_double_precision(tmp_path, name):
    vectors = np.tile([1e7 + 0.3, -4e6 - 0.7, 0.1], (4, 5, 6, 1))
    sitk.WriteImage(sitk.GetImageFromArray(vectors, isVector=True), str(tmp_path / name))
    read = read_transform(tmp_path / name).parts[0].field
    np.testing.assert_allclose(read[:, 3, 2, 1], vectors[0, 0, 0] * [-1, -1, 1], rtol=1e-15)


def test_lengths_of_a_field_that_are_missing_or_in_another_unit_are_told(tmp_path):
    """As those of an image are; a spacing that is missing is 1 mm, also to ITK."""
    head = "ObjectType = Image\nNDims = 3\nDimSize = 2 3 4\n{}ElementType = MET_FLOAT\nElementNumberOfChannels = 3\n"
    for name, lengths, said in (
        ("spaced", "ElementSpacing = 2 2 2\n", ""),
        ("unspaced", "", "lacks the spacing of its voxels"),
        ("micron", "ElementSpacing = 2 2 2\nDistanceUnits = um\n", "lengths in um, which count as mm"),
    ):
        path = tmp_path / f"{name}.mha"
        content = head.format(lengths) + "BinaryData = True\nElementDataFile = LOCAL\n"
        path.write_bytes(content.encode() + np.ones(72, "<f4").tobytes())
        with contextlib.nullcontext() if not said else pytest.warns(DataWarning, match=f"{name}.mha: .*{said}"):
            assert read_transform(path).parts[0].affine[2, 2] == (1 if name == "unspaced" else 2)


def test_the_intent_decides_the_frame_of_the_vectors(fixed_grid, tmp_path):
    """ITK reads intent 1006 as RAS vectors, and writes 1007."""
    image = displacement_image(torch.ones(3, *fixed_grid.shape), fixed_grid.affine)
    image.header.set_intent(1006)
    nib.save(image, tmp_path / "a.nii")
    read = itk.imread(str(tmp_path / "a.nii"), itk.Vector[itk.F, 3])
    by_itk = itk.array_from_image(read)[3, 4, 5] * [-1, -1, 1]
    np.testing.assert_allclose(read_transform(tmp_path / "a.nii").parts[0].field[:, 5, 4, 3], by_itk)


@pytest.mark.parametrize(
    ("name", "said"), [("Mapping", "a deformation of SPM"), ("NREG_TRANS", "a transform of Nifty")]
)
def test_positions_are_not_taken_for_displacements(tmp_path, fixed_grid, name, said):
    """SPM's y_*.nii and NiftyReg's fields have the shape and the intent of ITK's."""
    image = displacement_image(torch.as_tensor(fixed_grid.world()), fixed_grid.affine)
    image.header.set_intent(1007, name=name)
    nib.save(image, tmp_path / "y_a.nii")
    with pytest.raises(ValueError, match=f"y_a.nii: {said}.* holds positions.*; convert it to displacements in mm"):
        read_transform(tmp_path / "y_a.nii")


@pytest.mark.parametrize("kind", ["Euler3DTransform", "VersorRigid3DTransform", "Similarity3DTransform"])
def test_rigid_transforms_of_itk_are_read(tmp_path, kind):
    transform = getattr(itk, kind)[itk.D].New()
    transform.SetCenter([5.0, 6.0, 7.0])
    values = [0.1, 0.2, 0.3, 1.0, 2.0, 3.0, *([1.2] if kind.startswith("Similarity") else [])]
    transform.SetParameters(itk.OptimizerParameters[itk.D](values))
    itk.transformwrite([transform], str(tmp_path / "a.tfm"))
    points = torch.as_tensor(np.random.default_rng(0).normal(scale=30, size=(3, 5)))
    expected = itk_points(tmp_path / "a.tfm", points)
    np.testing.assert_allclose(read_transform(tmp_path / "a.tfm")(points), expected, atol=1e-9)


@pytest.mark.parametrize("rows", ["1 0 0 0 1 0 0 0 0", "1 2 3 2 4 6 0 0 1", "0 0 0 0 0 0 0 0 0"])
def test_an_affine_without_an_inverse_is_refused(tmp_path, rows):
    head = "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
    (tmp_path / "a.tfm").write_text(f"{head}Parameters: {rows} 4 5 6\nFixedParameters: 0 0 0\n")
    with pytest.raises(
        ValueError, match="a.tfm: its AffineTransform has no inverse, it makes a plane or less of space"
    ):
        read_transform(tmp_path / "a.tfm")


def test_a_translation_is_read(tmp_path):
    transform = itk.TranslationTransform[itk.D, 3].New()
    transform.SetOffset([1.0, 2.0, 3.0])
    itk.transformwrite([transform], str(tmp_path / "a.mat"))
    np.testing.assert_allclose(read_transform(tmp_path / "a.mat").affine_part()[:3, 3], [-1, -2, 3])


ALIASES = ["MatrixOffsetTransformBase_double_3_3", "MatrixOffsetTransformBase_float_3_3", "Rigid3DTransform_double_3_3"]


def renamed(path, new):
    """The file of an affine under another name of its transform, as c3d_affine_tool, greedy and ANTs write it."""
    old, content = b"AffineTransform_double_3_3", path.read_bytes()
    place = content.index(old)
    if path.suffix == ".mat":  # a name follows its length, and ends with a zero
        content = content[: place - 4] + np.int32(len(new) + 1).tobytes() + new + content[place + len(old) :]
    else:
        content = content.replace(old, new)
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["a.txt", "a.tfm", "a.mat"])
@pytest.mark.parametrize("kind", ALIASES)
def test_affines_under_other_names_are_read(tmp_path, name, kind):
    transform = sitk.AffineTransform([1.02, 0.1, -0.05, -0.08, 0.97, 0.04, 0.03, 0.02, 1.01], [2, -1, 4], [3, -4, 5])
    sitk.WriteTransform(transform, str(tmp_path / name))
    renamed(tmp_path / name, kind.encode())
    points = np.random.default_rng(0).normal(scale=30, size=(3, 5))
    expected = [np.array(transform.TransformPoint([-x, -y, z])) * [-1, -1, 1] for x, y, z in points.T.tolist()]
    read = read_transform(tmp_path / name)
    assert read.is_affine
    np.testing.assert_allclose(read(torch.as_tensor(points)).T, expected, atol=1e-6)


def test_an_affine_under_its_base_name_is_read_from_hdf5(tmp_path):
    transform = itk.MatrixOffsetTransformBase[itk.D, 3, 3].New()
    transform.SetOffset([1.0, 2.0, 3.0])
    itk.transformwrite([transform], str(tmp_path / "a.h5"))
    np.testing.assert_allclose(read_transform(tmp_path / "a.h5").affine_part()[:3, 3], [-1, -2, 3])


def test_a_transform_that_only_says_it_is_linear_is_refused(tmp_path):
    transform = itk.AzimuthElevationToCartesianTransform[itk.D, 3].New()
    assert transform.IsLinear()
    itk.transformwrite([transform], str(tmp_path / "a.tfm"))
    with pytest.raises(ValueError, match="a.tfm: holds a AzimuthElevationToCartesianTransform; supported are affine"):
        read_transform(tmp_path / "a.tfm")


@pytest.mark.parametrize("kind", ["ThinPlateSplineKernelTransform", "InverseBSplineTransform"])
def test_a_transform_that_only_3d_slicer_has_is_named(tmp_path, kind):
    text = "#Insight Transform File V1.0\n#Transform 0\nTransform: {}_double_3_3\nParameters: 1 2\nFixedParameters: 0\n"
    (tmp_path / "a.tfm").write_text(text.format(kind))
    with pytest.raises(ValueError, match=f"a.tfm: holds a {kind}; supported are affine .* 3D Slicer converts others"):
        read_transform(tmp_path / "a.tfm")


def test_parameters_without_fixed_ones_are_refused(motion, tmp_path):
    """ITK reads an identity, in silence."""
    write_transform(Transform([motion]), tmp_path / "a.tfm")
    lines = (tmp_path / "a.tfm").read_text().splitlines()
    (tmp_path / "a.tfm").write_text("\n".join(line for line in lines if not line.startswith("Fixed")) + "\n")
    with pytest.raises(ValueError, match="a.tfm: a transform without a line FixedParameters"):
        read_transform(tmp_path / "a.tfm")


@pytest.mark.parametrize("kind", ["resampling", "modeling"])
def test_a_field_of_3d_slicer_from_moving_to_fixed_points_is_refused(tmp_path, kind):
    field = sitk.GetImageFromArray(np.full((4, 5, 6, 3), 2.0), isVector=True)
    field.SetMetaData("displacement field type", kind)
    sitk.WriteImage(field, str(tmp_path / "a.nrrd"))
    assert f"displacement field type:={kind}".encode() in (tmp_path / "a.nrrd").read_bytes()
    if kind == "modeling":
        with pytest.raises(ValueError, match="a.nrrd: a modeling field of 3D Slicer, from moving to fixed points"):
            read_transform(tmp_path / "a.nrrd")
    else:
        assert read_transform(tmp_path / "a.nrrd").parts[0].field[2].unique().tolist() == [2]


def broken(path, content):
    path.write_bytes(content)
    return path


def test_what_is_no_transform_is_refused_in_one_line(tmp_path, fixed_grid):
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.float32), np.eye(4)), tmp_path / "image.nii.gz")
    itk.imwrite(itk.image_from_array(np.zeros((4, 5, 6), np.float32)), str(tmp_path / "image.mha"))
    colours = sitk.GetImageFromArray(np.ones((4, 5, 6, 3), np.uint8), isVector=True)
    sitk.WriteImage(colours, str(tmp_path / "colours.nrrd"))
    field = displacement_image(torch.full((3, *fixed_grid.shape), torch.nan), fixed_grid.affine)
    nib.save(field, tmp_path / "nan.nii.gz")
    itk.transformwrite([itk.BSplineTransform[itk.D, 3, 3].New()], str(tmp_path / "spline.h5"))
    itk.transformwrite([itk.TranslationTransform[itk.D, 2].New()], str(tmp_path / "plane.tfm"))
    cut = tmp_path / "cut.h5"
    write_transform(Transform([waves(fixed_grid)]), cut)
    broken(cut, cut.read_bytes()[:3000])
    cases = {
        "image.nii.gz": "not a transform: 4 x 5 x 6 values with intent 0, expected a field of X x Y x Z x 1 x 3",
        "image.mha": r"not a transform: 1 value\(s\) per voxel of float32, expected vectors of 3",
        "colours.nrrd": r"not a transform: 3 value\(s\) per voxel of uint8, expected vectors of 3, with signs",
        "nan.nii.gz": "not a transform: it has NaN or infinite values",
        "spline.h5": "holds a BSplineTransform; supported are affine transforms, displacement fields and composites",
        "plane.tfm": "a TranslationTransform of a plane, expected one of 3D",
        "cut.h5": r"not a transform, or damaged \(",
        broken(
            tmp_path / "elastix.txt", b'// made\n(Transform "EulerTransform")\n'
        ).name: "a parameter file of elastix; ",
        broken(tmp_path / "flirt.mat", b"1  0  0  -2.5e-01\n" * 4).name: r"a matrix alone, as FSL \(FLIRT\) and others",
        broken(tmp_path / "matrix.txt", b"1 0 0 2\n" * 4).name: r"a matrix alone, as FSL \(FLIRT\) and others",
        broken(tmp_path / "mrtrix.txt", b"# by MRtrix\n" + b"1 0 0 2\n" * 4).name: r"a matrix alone, as FSL",
        broken(tmp_path / "text.tfm", b"hello").name: r"not a transform, or damaged \(",
        broken(tmp_path / "text.h5", b"hello").name: r"not a transform, or damaged \(",
        broken(tmp_path / "text.nii.gz", b"hello").name: r"not a transform, or damaged \(",
        broken(tmp_path / "a.docx", b"hello").name: "not a format of a transform; supported are displacement fields",
    }
    for name, message in cases.items():
        with pytest.raises(ValueError, match=f"^{tmp_path}/{name}: {message}") as raised:
            read_transform(tmp_path / name)
        assert "\n" not in str(raised.value)
    with pytest.raises(FileNotFoundError, match="transform not found: .*missing.h5"):
        read_transform(tmp_path / "missing.h5")


def test_a_damaged_text_of_hdf5_ends_no_process(fixed_grid, motion, tmp_path):
    whole = tmp_path / "whole.h5"
    write_transform(Transform([motion, waves(fixed_grid)]), whole)
    itk.transformwrite([itk.down_cast(itk.transformread(str(whole))[0])], str(tmp_path / "plain.h5"), compression=False)
    content = (tmp_path / "plain.h5").read_bytes()
    *unread, first, _, last = [int.from_bytes(found[1], "little") for found in HDF5_STRING.finditer(content)]
    assert len(unread) == HDF5_UNREAD
    for place in (first, last):
        elsewhere = (struct.pack("<IQI", 5, place, 1), content[place : place + 12] + b"\xff" * 4)
        for text in (bytes(16), b"\xff" * 16, *elsewhere):
            damaged = broken(tmp_path / "a.h5", content[:place] + text + content[place + 16 :])
            with pytest.raises(ValueError, match=f"{damaged}: not a transform, or damaged"):
                read_transform(damaged)
    heap = content.index(b"GCOL")
    for kept in (*range(heap, heap + 400, 8), *range(first + 4, len(content), len(content) // 20)):
        with contextlib.suppress(ValueError):
            read_transform(broken(tmp_path / "a.h5", content[:kept] + bytes(len(content) - kept)))
    # ITK names the system; some have no name.
    place = unread[-1]
    sound = broken(tmp_path / "a.h5", content[:place] + bytes(16) + content[place + 16 :])
    np.testing.assert_array_equal(read_transform(sound).parts[0], read_transform(whole).parts[0])


SHIFTS = """#Insight Transform File V1.0
#Transform 0
Transform: TranslationTransform_double_3_3
Parameters: 1 2 3
FixedParameters:
#Transform 1
Transform: ScaleTransform_double_3_3
Parameters: 2 2 2
FixedParameters: 0 0 0
"""


def test_several_transforms_in_a_file_are_told_as_tools_differ(tmp_path):
    (tmp_path / "a.tfm").write_text(SHIFTS)
    with pytest.warns(DataWarning, match="a.tfm: 2 transforms, of which the last applies first.*; SimpleITK takes the"):
        parts = read_transform(tmp_path / "a.tfm").parts
    assert [part.diagonal()[:3].tolist() for part in parts] == [[2, 2, 2], [1, 1, 1]]
    assert sitk.ReadTransform(str(tmp_path / "a.tfm")).TransformPoint((5, 6, 7)) == (6, 8, 10)


def test_a_text_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "a.tfm").write_text("\ufeff" + SHIFTS.partition("#Transform 1")[0])
    np.testing.assert_array_equal(read_transform(tmp_path / "a.tfm").parts[0][:3, 3], [-1, -2, 3])
