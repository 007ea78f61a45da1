import json
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
from dicom_toys import write_series
from PIL import Image
from workflow_fixtures import write_dicom_series

from bundle.data.check import check_data
from bundle.formats.problems import grid_problems, image_problems, label_problems
from bundle.system import DataWarning

SHARED = Path(__file__).parents[2] / "shared" / "data"
SHAPE = (5, 6, 7)
LPS = np.diag([-0.5, -1.5, 2.0, 1.0])


def volume(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).uniform(1, 100, shape).astype(np.float32)


def save(path, array=None, affine=LPS):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(volume() if array is None else array, affine), path)


def labelled(root, count=6):
    """Volumes 0.5 x 1.5 x 2 mm with intensities 0 to 9 and labels 0, 1, 3."""
    image, label = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint8)
    image[0, 0, 0], label[1, 1, 1], label[2, 2, 2] = 9, 1, 3
    for number in range(count):
        save(root / f"images/c{number}.nii.gz", image)
        save(root / f"labels/c{number}.nii.gz", label)


def test_table_says_what_would_be_used(tmp_path):
    labelled(tmp_path)
    report = check_data(tmp_path)
    assert report.problems == []
    assert report.lines() == [
        f"data set {tmp_path}",
        "",
        "section     pairs  patients  images  with labels  with masks  with landmarks",
        "training    2      2         2       2            0           0",
        "validation  2      2         2       2            0           0",
        "test        2      2         2       2            0           0",
        "",
        "files   count  shape      spacing (mm)   orientation  values",
        "images  6      5 x 6 x 7  0.5 x 1.5 x 2  LPS (6)      0 to 9",
        "labels  6      5 x 6 x 7  0.5 x 1.5 x 2  LPS (6)      0, 1, 3",
        "",
        "no problems",
    ]


def test_table_fits_120_columns_and_summarises(tmp_path):
    for number in range(12):
        shape = (30 + number, 40 + number, 50)
        affine = np.diag([1.03 + number / 30, (-1) ** number * 0.512, 2.2 + number / 70, 1])
        save(tmp_path / f"fixed_images/{number:04d}.nii", volume(number, shape), affine)
        save(tmp_path / f"moving_images/{number:04d}.nii", volume(number, shape), affine)
        label = np.zeros((*shape, 2 + number % 2), np.uint8)
        label[3, 3, 3] = 1
        save(tmp_path / f"fixed_labels/{number:04d}.nii", label, affine)
    report = check_data(tmp_path)
    assert report.problems == []
    rows = str(report).splitlines()
    assert max(map(len, rows[1:])) <= 120
    fixed = next(row for row in rows if row.startswith("fixed images"))
    assert "30-41 x 40-51 x 50" in fixed
    assert "RAS (6), RPS (6)" in fixed
    assert "2-3 channels" in next(row for row in rows if row.startswith("fixed labels"))


def test_every_image_is_opened_however_many_there_are(tmp_path):
    """A draw of 16 pairs has 32 images at most: a damaged one beyond them was no problem, in silence."""
    for number in range(40):
        save(tmp_path / f"images/c{number}.nii")
    assert len(check_data(tmp_path, fractions=(0, 1, 0)).facts) == 40


def test_formats(tmp_path):
    """One volume, written as NRRD, MetaImage and a DICOM series, is read with the same size, spacing and axes."""
    image = itk.image_from_array(np.arange(1, 211, dtype=np.int16).reshape(7, 6, 5))
    image.SetSpacing([0.5, 1.5, 2.0])
    (tmp_path / "images").mkdir()
    itk.imwrite(image, str(tmp_path / "images/a.nrrd"))
    itk.imwrite(image, str(tmp_path / "images/b.mha"))
    write_dicom_series(tmp_path / "images/series", image)
    report = check_data(tmp_path, fractions=(1, 0, 0))
    assert report.problems == []
    facts = {Path(path).name: fact for path, fact in report.facts.items()}
    assert {name: (fact.shape, fact.spacing, fact.orientation, fact.values) for name, fact in facts.items()} == {
        "a.nrrd": (SHAPE, (0.5, 1.5, 2.0), "LPS", (1, 210)),
        "b.mha": (SHAPE, (0.5, 1.5, 2.0), "LPS", (1, 210)),
        "series": (SHAPE, (0.5, 1.5, 2.0), "LPS", (1, 210)),
    }


def planar(path, shape=(8, 9), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(volume(seed, shape).astype(np.uint8)).save(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_planar_images_are_volumes_of_one_slice(tmp_path, suffix):
    for side in ("fixed", "moving"):
        planar(tmp_path / f"{side}/a.{suffix}")
    report = check_data(tmp_path)
    assert report.problems == []
    assert {(fact.shape, fact.spacing) for fact in report.facts.values()} == {((9, 8, 1), (1.0, 1.0, 1.0))}
    assert any("9 x 8 x 1" in line for line in report.lines())
    assert check_data(tmp_path, spatial_dims=3).problems == [
        f"{side}/a.{suffix}: 9 x 8 x 1 voxels, a single slice, expected a volume; configs/inference_2d.yaml registers "
        "slices"
        for side in ("fixed", "moving")
    ]


def test_planar_files_with_a_header(tmp_path):
    """NIfTI of two axes, and of one slice, keep their spacing; a label belongs to its slice."""
    grid = np.diag([-0.5, -1.5, 2.0, 1.0])
    save(tmp_path / "images/flat.nii", volume(0, (8, 9)), grid)
    save(tmp_path / "images/slice.nii.gz", volume(0, (8, 9, 1)), grid)
    for name in ("flat", "slice"):
        save(tmp_path / f"labels/{name}.nii.gz", np.ones((8, 9, 1), np.uint8), grid)
    report = check_data(tmp_path, fractions=(1, 0, 0))
    assert report.problems == []
    assert {(fact.shape, fact.spacing[:2]) for fact in report.facts.values()} == {((8, 9, 1), (0.5, 1.5))}


def test_slices_and_volumes_mixed(tmp_path):
    """What the first readable image is, all have to be; a slice along another axis is said to be one."""
    planar(tmp_path / "images/a.png")
    save(tmp_path / "images/b.nii", volume(0, (8, 1, 9)))
    save(tmp_path / "images/c.nii", volume(0, (8, 9, 5)))
    (tmp_path / "images/0.png").write_text("no image")
    entries = [{"image": f"images/{name}"} for name in ("0.png", "a.png", "b.nii", "c.nii")]
    (tmp_path / "list.json").write_text(json.dumps({"test": entries}))
    unreadable, *problems = check_data(tmp_path, "list.json").problems
    assert unreadable.startswith("images/0.png: cannot be read")
    assert sorted(problems) == [
        "images/b.nii: 8 x 1 x 9 voxels, expected 8 x 9 x 1: the slice axis must be the third; move it there",
        "images/c.nii: 8 x 9 x 5 voxels, a volume, expected one slice; configs/inference.yaml registers volumes",
    ]
    pair = {"fixed_image": "images/c.nii", "moving_image": "images/a.png"}
    (tmp_path / "list.json").write_text(json.dumps({"test": [pair]}))
    (problem,) = check_data(tmp_path, "list.json").problems
    assert problem.startswith("images/a.png: 9 x 8 x 1 voxels, a single slice, expected a volume")


@pytest.mark.parametrize(
    ("shape", "spatial_dims", "message"),
    [
        ((8, 9), 2, "a: a 2-D image (8 x 9), expected a planar image, 3-D with one slice"),
        ((8, 9), 3, "a: a 2-D image (8 x 9), expected 3-D"),
        ((1, 1, 9), 3, "a: 1 x 1 x 9 voxels, expected at least 2 along each of 3 axes"),
        ((1, 9, 1), 2, "a: 1 x 9 x 1 voxels, expected at least 2 along both axes of the plane"),
        ((1, 9, 8), 2, "a: 1 x 9 x 8 voxels, expected 9 x 8 x 1: the slice axis must be the third; move it there"),
        ((8, 9, 1), 2, None),
        ((2, 2, 2), 3, None),
    ],
)
def test_shapes(shape, spatial_dims, message):
    assert grid_problems(shape, LPS, "a", spatial_dims) == ([message] if message else [])


def test_channels_of_a_planar_image():
    problems = image_problems(volume(0, (3, 8, 9, 1)), LPS, "a", spatial_dims=2)
    assert problems == ["a: an image of 3 channels, expected one channel; extract one"]


def test_landmarks_of_pairs_are_counted(tmp_path):
    names = [f"{side}_image" for side in ("fixed", "moving")]
    for name in names:
        planar(tmp_path / f"{name}.png")
    entry = {name: f"{name}.png" for name in names}
    (tmp_path / "points.csv").write_text("fixed_row,fixed_col,moving_row,moving_col\n1,2,3,4\n")
    for name in ("fixed_points", "moving_points"):
        (tmp_path / f"{name}.csv").write_text("row,col,name\n1,2,apex\n")
    both = {f"{side}_landmarks": f"{side}_points.csv" for side in ("fixed", "moving")}
    entries = [entry, entry | {"landmarks": "points.csv"}, entry | both, entry | {"fixed_landmarks": "points.csv"}]
    numbered = [entry | {"pair_id": f"p{number}"} for number, entry in enumerate(entries)]
    (tmp_path / "list.json").write_text(json.dumps({"test": numbered}))
    report = check_data(tmp_path, "list.json")
    assert report.problems == []
    assert next(line for line in report.lines() if line.startswith("test")).split()[-1] == "2"
    (tmp_path / "moving_points.csv").write_text("row,col,name\n1,2,base\n")
    (tmp_path / "points.csv").write_text("fixed_row,fixed_col\n1,2\n")
    named, found = check_data(tmp_path, "list.json").problems
    assert found.startswith("moving_points.csv: landmark 1 is 'base' here and 'apex' in the fixed image, and not every")
    assert named.startswith("points.csv: expected numbers in every row below one of the headers moving_i,moving_j")


def test_every_problem_at_once(tmp_path):
    good = volume(0, (40, 40, 40))
    whole = tmp_path / "whole.nii.gz"
    save(whole, good)
    (tmp_path / "truncated.nii.gz").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (tmp_path / "text.nrrd").write_text("no image")
    (tmp_path / "series").mkdir()
    save(tmp_path / "nan.nii", np.where(np.arange(210).reshape(SHAPE) < 4, np.nan, volume()).astype(np.float32))
    save(tmp_path / "empty.nii", np.zeros(SHAPE, np.float32))
    save(tmp_path / "constant.nii", np.full(SHAPE, 7, np.float32))
    save(tmp_path / "time.nii", volume(0, (*SHAPE, 3)))
    save(tmp_path / "flat.nii", volume(0, (5, 6)))
    save(tmp_path / "slice.nii", volume(0, (5, 6, 1)))
    save(tmp_path / "size.nii", np.ones((5, 6, 8), np.uint8))
    save(tmp_path / "shifted.nii", np.ones((40, 40, 40), np.uint8), LPS + 3 * np.eye(4, k=3))
    save(tmp_path / "soft.nii", np.full((40, 40, 40), 0.5, np.float32))
    damaged = ["truncated.nii.gz", "text.nrrd", "series", "nan.nii", "empty.nii", "constant.nii"]
    misfits = ["time.nii", "flat.nii", "slice.nii", "gone.nii"]
    entries = [{"fixed_image": name, "moving_image": "whole.nii.gz"} for name in damaged + misfits]
    entries += [
        {"fixed_image": "whole.nii.gz", "fixed_label": name, "moving_image": "whole.nii.gz", "pair_id": name}
        for name in ("size.nii", "shifted.nii", "soft.nii")
    ]
    (tmp_path / "list.json").write_text(json.dumps({"test": entries}))
    report = check_data(tmp_path, tmp_path / "list.json")
    expected = [
        f"test: fixed_image not found: {tmp_path}/gone.nii",
        "truncated.nii.gz: cannot be read",
        "text.nrrd: cannot be read",
        "series: cannot be read",
        "nan.nii: 4 of 210 values are NaN or infinite",
        "empty.nii: empty image, every value is 0",
        "constant.nii: constant image, every value is 7",
        "time.nii: an image of 3 volumes (a time series, or colours?)",
        "flat.nii: 5 x 6 x 1 voxels, a single slice, expected a volume",
        "slice.nii: 5 x 6 x 1 voxels, a single slice, expected a volume",
        "size.nii: the label is 5 x 6 x 8 and its image 40 x 40 x 40",
        "shifted.nii: the label lies up to 3 mm from its image",
        "soft.nii: the label has fractions",
    ]
    assert len(report.problems) == len(expected)
    for problem, start in zip(report.problems, expected, strict=True):
        assert problem.startswith(start)
        assert "\n" not in problem
    assert "13 problems" in report.lines()


def test_label_with_channels_keeps_its_own_origin(tmp_path):
    """A 4-D NIfTI with an sform only, off the origin, is where its image is."""
    for number in range(2):
        image = nib.Nifti1Image(volume(number), None)
        label = nib.Nifti1Image(np.ones((*SHAPE, 2), np.uint8), None)
        for file, folder in ((image, "images"), (label, "labels")):
            (tmp_path / folder).mkdir(exist_ok=True)
            file.header.set_zooms((0.5, 1.5, 2.0, 1.0)[: file.ndim])
            file.header.set_sform(LPS + 30 * np.eye(4, k=3), code=1)
            nib.save(nib.Nifti1Image(file.dataobj, None, file.header), tmp_path / folder / f"c{number}.nii")
    assert check_data(tmp_path).problems == []


def test_unreadable_data_set_is_a_problem_not_an_exception(tmp_path):
    report = check_data(tmp_path / "no")
    assert len(report.problems) == 1
    assert report.lines()[-2:] == ["1 problem", f"  - {report.problems[0]}"]
    (tmp_path / "list.json").write_text('{"test": []}')
    assert check_data(tmp_path, "list.json").problems == [
        "no pairs in the data set; list some in the datalist, or add images"
    ]


def test_repeat_scans(tmp_path):
    labelled(tmp_path, 3)
    (tmp_path / "patients.csv").write_text("image,patient\nc0,A\nc1,A\nc2,B\n")
    report = check_data(tmp_path, pairing="repeat", fractions=(1, 0, 0))
    assert report.problems == []
    assert report.lines()[3].split() == ["training", "2", "1", "2", "2", "0", "0"]
    (tmp_path / "patients.csv").unlink()
    (problem,) = check_data(tmp_path, pairing="repeat").problems
    assert problem.startswith("no patient has two images: 3 image(s) of 3 patient(s)")


def test_more_than_one_dicom_series(tmp_path):
    for folder in ("s0", "s1"):
        for number, name in enumerate("ab"):
            voxels = volume(number).astype(np.int16)
            write_series(tmp_path / "images" / folder / name, voxels, LPS, SeriesNumber=number)
    problems = check_data(tmp_path).problems
    assert sorted(problem.split(";")[0] for problem in problems) == [
        f"images/s{number}: 2 volumes, expected one: 0 MR a (5 x 6 x 7)" for number in range(2)
    ]


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.diag([1.0, 0, 1, 1]), "a: spacing 1 x 0 x 1, expected more than 0 (singular affine); correct the header"),
        (np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "a: singular affine"),
        (np.diag([1, np.nan, 1, 1]), "a: the affine has NaN"),
        (np.eye(3), "a: affine of size 3 x 3, expected 4 x 4"),
        (
            np.array([[2.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0], [10, -20, 30, 1]]),
            "a: the last row of the affine is 10 -20 30 1, expected 0 0 0 1; is it transposed?",
        ),
    ],
)
def test_bad_affine(affine, message):
    (problem,) = image_problems(volume()[None], affine, "a")
    assert problem.startswith(message)


def test_oblique_sheared_grid_is_fit():
    # 60 degrees between two axes, as tilted gantries give at worst, and a left-handed frame are sound.
    affine = np.array([[-0.8, 0.4, 0, 5], [0, 0.7, 0.1, 9], [0, 0, 3, 2], [0, 0, 0, 1]])
    assert image_problems(volume()[None], affine, "a") == []


def test_image_problems_come_together_and_leave_the_array():
    array = volume(0, (2, 5, 6, 7))
    array[0, 0, 0, :3] = np.inf
    before = array.copy()
    problems = image_problems(array, np.zeros((4, 4)), "a")
    assert [problem.split(";")[0] for problem in problems] == [
        "a: spacing 0 x 0 x 0, expected more than 0 (singular affine)",
        "a: an image of 2 volumes (a time series, or colours?), expected one channel",
        "a: 3 of 420 values are NaN or infinite",
    ]
    assert (array == before).all()
    assert image_problems(np.zeros((1, 0, 6, 7)), LPS, "a") == [
        "a: 0 x 6 x 7 voxels, expected at least 2 along each of 3 axes"
    ]


def test_label_problems():
    label = np.zeros((1, *SHAPE))
    assert label_problems(label, LPS, "l") == ["l: the label is empty, every value is 0; leave it out"]
    label[0, 1, 1, 1] = np.nan
    assert label_problems(label, LPS, "l") == ["l: the label has NaN or infinite values; labels are whole numbers"]
    label[0, 1, 1, 1] = 2
    nudged = LPS + 0.2 * np.eye(4, k=3)  # less than half a voxel: rounding of headers
    assert label_problems(label, LPS, "l", (SHAPE, nudged)) == []


@pytest.mark.skipif(not (SHARED / "prostate_mr_trus").is_dir(), reason="needs ../shared/data/prostate_mr_trus")
def test_prostate_has_no_problems():
    report = check_data(SHARED / "prostate_mr_trus", pairing="fixed")
    assert report.problems == []
    row = next(line for line in report.lines() if line.startswith("images")).split("  ")
    assert {"47 x 63 x 44", "1.5 x 1.5 x 1.5"} <= {cell.strip() for cell in row}


@pytest.mark.skipif(not (SHARED / "octa_scp").is_dir(), reason="needs ../shared/data/octa_scp")
def test_octa_has_no_problems():
    report = check_data(SHARED / "octa_scp/test")
    assert report.problems == []
    counts = [line.split() for line in report.lines() if line.startswith(("training", "validation", "test"))]
    assert sum(int(row[1]) for row in counts) == sum(int(row[-1]) for row in counts) == 20
    assert any("304 x 304 x 1" in line for line in report.lines())


def test_forms_that_disagree_are_a_problem(tmp_path, fixed_grid):
    for side, shift in (("fixed", 0.0), ("moving", 4.0)):
        image = nib.Nifti1Image(np.random.default_rng(0).random(fixed_grid.shape), fixed_grid.affine)
        image.set_sform(fixed_grid.affine, code=1)
        qform = fixed_grid.affine.copy()
        qform[0, 3] += shift
        image.set_qform(qform, code=1)
        (tmp_path / side).mkdir()
        nib.save(image, tmp_path / side / "a.nii")
    (problem,) = check_data(tmp_path).problems
    assert "moving/a.nii: sform and qform disagree by up to 4 mm" in problem


def test_a_folder_whose_name_begins_as_that_of_a_home_is_read(tmp_path, monkeypatch):
    """No user is called ``x``, and a folder may be."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~x/images").mkdir(parents=True)
    problems = [check_data(name).problems[0] for name in ("~nobody-of-that-name", "~x")]
    assert [f"dataset_dir is not a folder: {tmp_path}/~nobody" in problem for problem in problems] == [True, False]


def test_images_of_a_format_that_is_not_read_are_not_left_out_of_a_folder_in_silence(tmp_path, recwarn):
    labelled(tmp_path)
    for name in ("c0.raw", "c1.json", "notes.txt", ".hidden.mnc"):
        (tmp_path / "images" / name).write_bytes(b"beside an image, or no image")
    assert check_data(tmp_path).problems == [] and not recwarn.list
    for name in ("d.PAR", "d.REC", "e.mnc.gz"):
        (tmp_path / "images" / name).write_bytes(b"\0")
    with pytest.warns(
        DataWarning, match=f"{tmp_path}/images: 3 files are left out, the first d.PAR: PAR/REC of Philips"
    ):
        assert check_data(tmp_path).problems == []
