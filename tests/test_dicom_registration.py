"""Registration objects: what the standard's equations say, read without the bundle; and back through it."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from dicom_checks import (
    FIXED,
    FIXED_SHAPE,
    MOVING,
    check_conformance,
    check_modules,
    itk_series,
    points_inside,
    world,
    written,
)
from dicom_toys import RAS_TO_LPS, write_multiframe
from pydicom.uid import DeformableSpatialRegistrationStorage, ExplicitVRBigEndian, SpatialRegistrationStorage
from scipy.ndimage import gaussian_filter, map_coordinates
from toys import rigid

from bundle.dicom.spatial_registration import matrix_type, registration_object
from bundle.formats import read_transform
from bundle.geometry import Displacement, Transform, centre_of_volume, warp_native
from bundle.results import apply_transform

pytest_plugins = ["dicom_checks"]

LPS = np.array([-1.0, -1.0, 1.0])


def smooth_field(shape=FIXED_SHAPE, affine=FIXED):
    """Displacement of up to 4 mm."""
    noise = np.random.default_rng(3).normal(size=(3, *shape))
    field = np.stack([gaussian_filter(channel, 2) for channel in noise])
    return Displacement(torch.as_tensor(4 * field / np.abs(field).max()), affine)


def centre_alignment(pair):
    """As ``initial_alignment: center``: 60 mm and more."""
    alignment = np.eye(4)
    alignment[:3, 3] = centre_of_volume(MOVING, pair.moving.shape) - centre_of_volume(FIXED, pair.fixed.shape)
    return alignment


@pytest.fixture
def transform(pair):
    return Transform([smooth_field(), rigid((3, -4, 5), [1, 2, 3], [0, 0, 0]) @ centre_alignment(pair)])


def moved(transform, points):
    return transform(torch.as_tensor(points.T)).T.numpy()


def decoded(read):
    """The field and matrices of a deformable object from the equation of PS3.3 C.20.3.1.1, LPS, by numpy alone."""
    (item,) = [item for item in read.DeformableRegistrationSequence if "DeformableRegistrationGridSequence" in item]
    grid = item.DeformableRegistrationGridSequence[0]
    columns, rows, planes = grid.GridDimensions
    vectors = np.frombuffer(grid.VectorGridData, dtype="<f4").reshape(planes, rows, columns, 3)
    along, down = np.array(grid.ImageOrientationPatient, dtype=float).reshape(2, 3)
    axes = np.stack([along, down, np.cross(along, down)], axis=1)
    matrices = [
        np.array(item[f"{when}DeformationMatrixRegistrationSequence"][0].FrameOfReferenceTransformationMatrix, float)
        for when in ("Pre", "Post")
    ]
    origin = np.array(grid.ImagePositionPatient, dtype=float)
    return vectors, axes, np.array(grid.GridResolution), origin, *(matrix.reshape(4, 4) for matrix in matrices)


def by_the_standard(read, points):
    """Source coordinates of Registered ones ``(n, 3)``, LPS, the vectors interpolated linearly."""
    vectors, axes, spacing, origin, before, after = decoded(read)
    places = ((points - origin) @ axes / spacing).T[::-1]
    offsets = np.stack([map_coordinates(vectors[..., axis], places, order=1) for axis in range(3)], axis=1)
    return world(after, world(before, points) + offsets)


def test_a_deformation_leads_from_fixed_to_moving_points(pair, transform, tmp_path):
    read = written(registration_object(transform, pair.fixed, pair.moving), tmp_path / "registration.dcm")
    points = points_inside()
    expected = moved(transform, points)
    assert np.linalg.norm(expected - moved(Transform(transform.parts[1:]), points), axis=1).max() > 2
    np.testing.assert_allclose(by_the_standard(read, points * LPS) * LPS, expected, atol=1e-3)
    np.testing.assert_allclose(moved(read_transform(tmp_path / "registration.dcm"), points), expected, atol=1e-3)
    assert read.SOPClassUID == DeformableSpatialRegistrationStorage
    assert read.FrameOfReferenceUID == pair.fixed.frame
    own, other = read.DeformableRegistrationSequence
    assert own.SourceFrameOfReferenceUID == pair.fixed.frame
    assert other.SourceFrameOfReferenceUID == pair.moving.frame
    assert "DeformableRegistrationGridSequence" not in own
    assert other.PreDeformationMatrixRegistrationSequence[0].FrameOfReferenceTransformationMatrixType == "RIGID"


def test_sitk_warps_with_the_object_as_the_bundle_does(pair, transform, tmp_path):
    read = written(registration_object(transform, pair.fixed, pair.moving), tmp_path / "registration.dcm")
    vectors, axes, spacing, origin, before, after = decoded(read)
    np.testing.assert_array_equal(before, np.eye(4))
    field = sitk.GetImageFromArray(vectors.astype(np.float64), isVector=True)
    field.SetOrigin(origin.tolist())
    field.SetSpacing(spacing.tolist())
    field.SetDirection(axes.ravel().tolist())
    alignment = sitk.AffineTransform(after[:3, :3].ravel().tolist(), after[:3, 3].tolist())
    both = sitk.CompositeTransform([alignment, sitk.DisplacementFieldTransform(field)])  # the last is applied first
    fixed, moving = (itk_series(pair.folder / side) for side in ("fixed", "moving"))
    resampled = sitk.Resample(moving, fixed, both, sitk.sitkLinear, 0.0, sitk.sitkFloat64)
    displacement = transform.displacement_on(FIXED, FIXED_SHAPE).double()
    ours = warp_native(torch.as_tensor(pair.voxels["moving"][None]).double(), MOVING, displacement, FIXED)[0].numpy()
    assert np.ptp(ours) > 500
    # At the faces of the moving image one rounding decides between its outermost voxel and nothing.
    difference = np.abs(sitk.GetArrayFromImage(resampled).transpose(2, 1, 0) - ours)
    assert np.quantile(difference, 0.99) < 0.05
    points = points_inside()
    theirs = np.array([both.TransformPoint((point * LPS).tolist()) for point in points]) * LPS
    voxels = [world(np.linalg.inv(MOVING), place) for place in (theirs, moved(transform, points))]
    assert np.abs(voxels[0] - voxels[1]).max() < 0.1


def test_an_affine_is_written_from_moving_to_fixed(pair, tmp_path):
    matrix = rigid((10, -20, 30), [5, -6, 7], [10, 20, 30]) @ np.diag([1.1, 0.9, 1.2, 1.0]) @ centre_alignment(pair)
    transform = Transform([matrix])
    read = written(registration_object(transform, pair.fixed, pair.moving), tmp_path / "registration.dcm")
    assert read.SOPClassUID == SpatialRegistrationStorage
    own, other = read.RegistrationSequence
    assert (own.FrameOfReferenceUID, other.FrameOfReferenceUID) == (pair.fixed.frame, pair.moving.frame)
    matrices = [item.MatrixRegistrationSequence[0].MatrixSequence[0] for item in (own, other)]
    identity, to_fixed = (np.array(m.FrameOfReferenceTransformationMatrix, float).reshape(4, 4) for m in matrices)
    np.testing.assert_array_equal(identity, np.eye(4))
    points = points_inside()
    np.testing.assert_allclose(world(to_fixed, moved(transform, points) * LPS) * LPS, points, atol=1e-4)
    np.testing.assert_allclose(
        moved(read_transform(tmp_path / "registration.dcm"), points), moved(transform, points), atol=1e-3
    )
    assert matrices[1].FrameOfReferenceTransformationMatrixType == matrix_type(np.linalg.inv(matrix)) == "AFFINE"


TURN = rigid((10, -20, 30), [5, -6, 7], [0, 0, 0])


@pytest.mark.parametrize(
    ("matrix", "kind"),
    [
        (np.eye(4), "RIGID"),
        (TURN, "RIGID"),
        (TURN @ np.diag([1.1, 0.9, 1.2, 1]), "RIGID_SCALE"),
        (np.diag([1.1, 0.9, 1.2, 1]) @ TURN, "AFFINE"),
        (np.diag([1.0, 1.0, -1.0, 1.0]), "AFFINE"),
    ],
)
def test_the_type_of_a_matrix_is_what_it_is(matrix, kind):
    assert matrix_type(matrix) == kind


def test_a_left_handed_grid_is_turned_round(pair, transform, tmp_path):
    mirror = np.diag([1.0, 1.0, -1.0, 1.0])
    mirror[2, 3] = FIXED_SHAPE[2] - 1
    displacement, alignment = transform.parts
    left = Displacement(displacement.field.flip(3), FIXED @ mirror)
    assert np.linalg.det(left.affine[:3, :3]) * np.linalg.det(FIXED[:3, :3]) < 0
    read = written(registration_object(Transform([left, alignment]), pair.fixed, pair.moving), tmp_path / "r.dcm")
    points = points_inside()
    np.testing.assert_allclose(by_the_standard(read, points * LPS) * LPS, moved(transform, points), atol=1e-3)


def test_an_object_in_big_endian_has_the_same_field(pair, transform, tmp_path):
    made = registration_object(transform, pair.fixed, pair.moving)
    read_back = written(made, tmp_path / "little.dcm")
    item = read_back.DeformableRegistrationSequence[1].DeformableRegistrationGridSequence[0]
    item.VectorGridData = np.frombuffer(item.VectorGridData, "<f4").astype(">f4").tobytes()
    read_back.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    pydicom.dcmwrite(tmp_path / "big.dcm", read_back, enforce_file_format=True)
    little, big = (read_transform(tmp_path / f"{order}.dcm").parts[0] for order in ("little", "big"))
    assert little.field.abs().max() > 3
    torch.testing.assert_close(big.field, little.field, rtol=0, atol=0)


def test_objects_of_others_with_a_matrix_before_the_deformation(pair, transform, tmp_path):
    made = registration_object(transform, pair.fixed, pair.moving)
    before = RAS_TO_LPS @ rigid((-5, 10, 3), [9, 8, 7], [1, 2, 3]) @ RAS_TO_LPS
    item = made.DeformableRegistrationSequence[1]
    item.PreDeformationMatrixRegistrationSequence[0].FrameOfReferenceTransformationMatrix = before.ravel().tolist()
    del made.DeformableRegistrationSequence[0]
    read = written(made, tmp_path / "registration.dcm")
    points = points_inside()
    expected = by_the_standard(read, points * LPS) * LPS
    assert np.abs(expected - moved(transform, points)).max() > 5
    np.testing.assert_allclose(moved(read_transform(tmp_path / "registration.dcm"), points), expected, atol=1e-3)


def test_several_matrices_multiply_in_their_order(pair, tmp_path):
    made = registration_object(Transform([TURN]), pair.fixed, pair.moving)
    steps = made.RegistrationSequence[1].MatrixRegistrationSequence[0].MatrixSequence
    one, two = np.diag([1.2, 1.0, 0.8, 1.0]), rigid((0, 0, 40), [1, 2, 3], [0, 0, 0])
    for matrix in (one, two):
        step = pydicom.Dataset()
        step.FrameOfReferenceTransformationMatrix = (RAS_TO_LPS @ matrix @ RAS_TO_LPS).ravel().tolist()
        step.FrameOfReferenceTransformationMatrixType = "AFFINE"
        steps.append(step)
    written(made, tmp_path / "r.dcm")
    expected = np.linalg.inv(np.linalg.inv(TURN) @ one @ two)
    np.testing.assert_allclose(read_transform(tmp_path / "r.dcm").affine_part(), expected, atol=1e-6)


def unplaced(made):
    made.RegistrationSequence[0].MatrixRegistrationSequence = []


def rounded(made):
    step = made.RegistrationSequence[0].MatrixRegistrationSequence[0].MatrixSequence[0]
    step.FrameOfReferenceTransformationMatrix = [1, 1e-8, 0, 1e-7, 0, 1, 0, 0, 0, 0, 0.99999999, 0, 0, 0, 0, 1]


def second_series(made):
    made.RegistrationSequence.append(made.RegistrationSequence[1])


@pytest.mark.parametrize("change", [unplaced, rounded, second_series])
def test_items_that_move_nothing_or_as_another_one(pair, change, tmp_path):
    """An image in the Registered frame needs no matrix (PS3.3 C.20.2: zero or one item), and PET moves with its CT."""
    made = registration_object(Transform([TURN]), pair.fixed, pair.moving)
    written(spoilt(made, change), tmp_path / "r.dcm")
    np.testing.assert_allclose(read_transform(tmp_path / "r.dcm").affine_part(), TURN, atol=1e-6)


@pytest.mark.parametrize("affine", [False, True])
def test_all_images_are_referenced_and_the_object_conforms(pair, transform, affine, tmp_path):
    transform = Transform([TURN]) if affine else transform
    read = written(registration_object(transform, pair.fixed, pair.moving), tmp_path / "registration.dcm")
    uids = {
        side: [pydicom.dcmread(file).SOPInstanceUID for file in getattr(pair, side).files]
        for side in ("fixed", "moving")
    }
    items = read.RegistrationSequence if affine else read.DeformableRegistrationSequence
    for item, side in zip(items, ("fixed", "moving"), strict=True):
        assert [image.ReferencedSOPInstanceUID for image in item.ReferencedImageSequence] == uids[side]
    (same,) = read.ReferencedSeriesSequence
    (other,) = read.StudiesContainingOtherReferencedInstancesSequence
    assert (read.StudyInstanceUID, other.StudyInstanceUID) == (pair.fixed.study, pair.moving.study)
    for series, side in ((same, "fixed"), (other.ReferencedSeriesSequence[0], "moving")):
        assert series.SeriesInstanceUID == getattr(pair, side).uid
        assert [image.ReferencedSOPInstanceUID for image in series.ReferencedInstanceSequence] == uids[side]
    assert (read.PatientID, read.Modality) == ("P1", "REG")
    check_modules(read)
    check_conformance(tmp_path / "registration.dcm")


def test_one_study_and_one_frame_of_two_series(pair, transform, tmp_path):
    identities = tuple((pair.fixed.study, *own) for _, *own in pair.moving.identities)
    moving = replace(pair.moving, identities=identities, frame=pair.fixed.frame)
    for parts in (transform, Transform([TURN])):
        read = written(registration_object(parts, pair.fixed, moving), tmp_path / "r.dcm")
        assert len(read.ReferencedSeriesSequence) == 2
        assert "StudiesContainingOtherReferencedInstancesSequence" not in read
        points = points_inside()
        np.testing.assert_allclose(moved(read_transform(tmp_path / "r.dcm"), points), moved(parts, points), atol=1e-3)


@pytest.mark.parametrize("name", ["REG0001", "RE.1.2.840.113619.2.55", "registration.IMA"])
def test_an_object_under_the_name_that_a_medium_gives_it(pair, name, tmp_path):
    made = registration_object(Transform([TURN]), pair.fixed, pair.moving)
    written(made, tmp_path / "r.dcm")
    (tmp_path / "r.dcm").rename(tmp_path / name)
    np.testing.assert_allclose(read_transform(tmp_path / name).affine_part(), TURN, atol=1e-6)


def test_apply_takes_the_object(pair, transform, tmp_path):
    written(registration_object(transform, pair.fixed, pair.moving), tmp_path / "registration.dcm")
    points = points_inside(20)
    (tmp_path / "points.csv").write_text(
        "x,y,z\n" + "\n".join(",".join(map(str, point)) for point in moved(transform, points))
    )
    apply_transform(tmp_path / "registration.dcm", [tmp_path / "points.csv"], tmp_path / "fixed.csv")
    found = np.loadtxt(tmp_path / "fixed.csv", delimiter=",", skiprows=1, usecols=(0, 1, 2))
    np.testing.assert_allclose(found, points, atol=0.01)


def test_what_dicom_cannot_hold_is_refused(pair, transform):
    displacement, alignment = transform.parts
    huge = Displacement(torch.zeros(1).expand(3, 1024, 1024, 400), FIXED)
    sheared = FIXED.copy()
    sheared[:3, 2] += 0.3 * FIXED[:3, 0]
    cases = [
        (Transform([huge]), "a field of 419430400 vectors, DICOM holds"),
        (Transform([Displacement(displacement.field, sheared)]), "the grid of the field is sheared"),
        (Transform([alignment, displacement]), "a displacement followed by affines"),
    ]
    for refused, message in cases:
        with pytest.raises(ValueError, match=message):
            registration_object(refused, pair.fixed, pair.moving)


def spoilt(made, change):
    change(made)
    return made


def cut(made):
    grid = made.DeformableRegistrationSequence[1].DeformableRegistrationGridSequence[0]
    grid.VectorGridData = grid.VectorGridData[:-12]


def undefined(made):
    grid = made.DeformableRegistrationSequence[1].DeformableRegistrationGridSequence[0]
    grid.VectorGridData = np.full(3, np.nan, "<f4").tobytes() + grid.VectorGridData[12:]


def twice(made):
    made.DeformableRegistrationSequence.append(made.DeformableRegistrationSequence[1])


def without_extent(made):
    made.DeformableRegistrationSequence[1].DeformableRegistrationGridSequence[0].GridResolution = [1.0, 0.0, 1.0]


def singular(made):
    step = made.DeformableRegistrationSequence[1].PostDeformationMatrixRegistrationSequence[0]
    step.FrameOfReferenceTransformationMatrix = [0.0] * 15 + [1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cut, "bytes of vectors, expected 14 x 11 x 7 vectors of 12 bytes"),
        (undefined, "its field is undefined"),
        (twice, "holds 2 deformation grids, expected one"),
        (without_extent, "the header of its grid is damaged"),
        (singular, "one of its matrices is no invertible affine"),
    ],
)
def test_a_damaged_object_is_one_line(pair, transform, change, message, tmp_path):
    path = tmp_path / "registration.dcm"
    written(spoilt(registration_object(transform, pair.fixed, pair.moving), change), path)
    with pytest.raises(ValueError, match=f"registration.dcm: .*{message}") as raised:
        read_transform(path)
    assert "\n" not in str(raised.value)


def test_several_registrations_of_one_image_are_refused(pair, tmp_path):
    made = registration_object(Transform([TURN]), pair.fixed, pair.moving)
    found = made.RegistrationSequence[1].MatrixRegistrationSequence
    found.append(found[0])
    written(made, tmp_path / "r.dcm")
    with pytest.raises(ValueError, match="it has 2 registrations of one image, expected one"):
        read_transform(tmp_path / "r.dcm")


def test_frames_under_another_name_are_told_what_to_do_and_that_helps(tmp_path):
    """Their folder, which the line named, is no transform either."""
    write_multiframe(tmp_path / "frames.nrrd", np.zeros((5, 4, 3), np.int16), FIXED, range(3))
    with pytest.raises(ValueError, match=r"DICOM of several frames by its content, .*; call it .dcm$"):
        read_transform(tmp_path / "frames.nrrd")
    with pytest.raises(ValueError, match="a DICOM object of the kind Enhanced MR Image Storage; expected a"):
        read_transform((tmp_path / "frames.nrrd").rename(tmp_path / "frames.dcm"))


def test_other_files_are_not_transforms(pair, tmp_path):
    with pytest.raises(ValueError, match="a DICOM object of the kind MR Image Storage; expected a Spatial Reg"):
        read_transform(pair.fixed.files[0])
    (tmp_path / "text.dcm").write_text("no DICOM")
    with pytest.raises(ValueError, match="text.dcm: not a transform, or damaged"):
        read_transform(tmp_path / "text.dcm")
    deflated = pydicom.dcmread(pair.fixed.files[0])
    deflated.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    deflated.save_as(tmp_path / "deflated.dcm")
    with pytest.raises(ValueError, match="a deflated DICOM file"):
        read_transform(tmp_path / "deflated.dcm")


def test_random_damage_is_one_line(pair, transform, tmp_path):
    path, random = tmp_path / "registration.dcm", np.random.default_rng(0)
    for parts in (transform, Transform([TURN])):
        written(registration_object(parts, pair.fixed, pair.moving), path)
        whole = path.read_bytes()
        for _ in range(40):
            content = bytearray(whole[: random.integers(len(whole))] if random.random() < 0.3 else whole)
            for place in random.integers(len(content), size=20):
                content[place] = random.integers(256)
            path.write_bytes(content)
            try:
                read_transform(path)
            except ValueError as error:
                assert str(error).startswith(str(path))
                assert "\n" not in str(error)
