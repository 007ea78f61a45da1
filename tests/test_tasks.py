import json
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from toys import touch

from bundle.data.check import check_data
from bundle.data.datalist import read_datalist, survey, write_datalist
from bundle.data.splits import select_pairs
from bundle.system import DataWarning

SHARED = Path(__file__).parents[2] / "shared" / "data"
ALL = {"training": None, "validation": None, "test": None}
TRAIN_ONLY = (1.0, 0.0, 0.0)
SPLIT = (0.4, 0.3, 0.3)


def read(root, **options):
    """All pairs in one section, as ``(task, moving, fixed)`` with paths relative to the root."""
    pairs = read_datalist(root, **{"fractions": TRAIN_ONLY, "limits": ALL} | options)["training"]
    sides = ("moving_image", "fixed_image")
    return [(pair.get("task"), *(Path(pair[side]).relative_to(root).as_posix() for side in sides)) for pair in pairs]


def patients_of(sections):
    return [{patient for pair in pairs for patient in pair["patient"]} for pairs in sections.values()]


def write(root, content):
    (root / "list.json").write_text(json.dumps(content))
    return root / "list.json"


@pytest.fixture
def tasks(tmp_path):
    """Two tasks of slices of the same patients, one of two sides, one of single images; what is hidden is none."""
    for task in ("t1", "t2"):
        touch(tmp_path, *(f"{task}/{patient}_{number:03d}.png" for patient in "ABC" for number in (1, 2)))
    touch(tmp_path, *(f"eye/{side}/{name}.png" for side in ("fixed", "moving") for name in ("A", "x")))
    touch(tmp_path, *(f"ct/images/{name}.nii" for name in ("y", "z")))
    touch(tmp_path, ".cache/a.txt", "README.md")
    return tmp_path


# --- folder of tasks ----------------------------------------------------------------------------------------------


def test_every_folder_is_a_task(tasks):
    assert read(tasks) == [
        ("eye", "eye/moving/A.png", "eye/fixed/A.png"),
        ("eye", "eye/moving/x.png", "eye/fixed/x.png"),
        *(("t1", f"t1/{patient}_001.png", f"t1/{patient}_002.png") for patient in "ABC"),
        *(("t2", f"t2/{patient}_001.png", f"t2/{patient}_002.png") for patient in "ABC"),
        ("ct", "ct/images/y.nii", "ct/images/z.nii"),
        ("ct", "ct/images/z.nii", "ct/images/y.nii"),
    ]


def test_one_more_task_is_one_more_folder(tasks):
    touch(tasks, "sixth/fixed_images/q.mha", "sixth/moving_images/q.mha")
    assert ("sixth", "sixth/moving_images/q.mha", "sixth/fixed_images/q.mha") in read(tasks)


@pytest.mark.parametrize("seed", range(5))
def test_a_patient_is_the_same_in_every_task(tasks, seed):
    sections = read_datalist(tasks, fractions=SPLIT, seed=seed)
    groups = patients_of(sections)
    assert sum(map(len, groups)) == len(set().union(*groups))
    assert set().union(*groups) >= {"A", "B", "C", "x"}
    section_of_a = next(name for name, pairs in sections.items() if any("A" in pair["patient"] for pair in pairs))
    of_a = [pair["task"] for pair in sections[section_of_a] if "A" in pair["patient"]]
    assert sorted(of_a) == ["eye", "t1", "t2"]


def test_every_task_is_trained_on(tasks):
    for seed in range(5):
        trained = {pair["task"] for pair in read_datalist(tasks, fractions=SPLIT, seed=seed)["training"]}
        assert {"ct"} < trained  # its only two patients form pairs in one section


def test_a_task_of_too_few_patients(tasks):
    touch(tasks, "mr/images/m.nii")
    with pytest.raises(ValueError, match=r"training has no pair: 1 patient\(s\) found, .* at least 2: \['m'\]"):
        read_datalist(tasks)


def test_pair_ids_are_unique_over_the_tasks(tasks):
    names = [pair["pair_id"] for pair in select_pairs(read_datalist(tasks, fractions=TRAIN_ONLY))]
    assert len(set(names)) == len(names)
    assert {"t1_A_001_to_t1_A_002", "t2_A_001_to_t2_A_002", "x_to_x"} <= set(names)


def test_patients_of_the_root_and_of_a_task(tasks):
    rows = ["image,patient", "A,P", "x,X", "y,Y", "z,Z", "B,P", "C,Q"]
    (tasks / "patients.csv").write_text("\n".join(rows))
    (tasks / "t2/patients.csv").write_text("image,patient\nA,T\nB,T\nC,T\n")
    pairs = select_pairs(read_datalist(tasks, fractions=TRAIN_ONLY))
    found = {(pair["task"], *pair["patient"]) for pair in pairs if pair["task"] != "ct"}
    assert found == {("eye", "P"), ("eye", "X"), ("t1", "P"), ("t1", "Q"), ("t2", "T")}


def test_what_is_no_task_is_named(tasks):
    touch(tasks, "notes/a.txt", "odd/fixed/a.png", "gap/A_1.png", "gap/A_3.png", "few/images/y.nii", "few/labels/x.nii")
    sections, problems = survey(tasks, fractions=TRAIN_ONLY)
    assert problems == [
        "few: labels/ has no file for the image y; add it, or list pairs in a datalist",
        f"gap: no two slices of {tasks}/gap are neighbours; expected numbers that follow, as A_047 and A_048",
        "notes/ is no task: expected images/, fixed/ and moving/, or slices such as A_047.png in it; arrange them so, "
        "or move the folder away",
        f"odd: {tasks}/odd has no moving/, which the pairing 'paired' needs",
    ]
    assert {pair["task"] for pair in select_pairs(sections)} == {"ct", "eye", "t1", "t2"}


def test_problems_are_told_where_no_task_has_a_pair(tmp_path):
    touch(tmp_path, "gap/A_1.png", "gap/A_3.png", "notes/a.txt")
    sections, problems = survey(tmp_path)
    assert not any(sections.values())
    assert [problem.split(":")[0] for problem in problems] == ["gap", "notes/ is no task"]


@pytest.mark.parametrize(
    "files", [["x/y/images/a.png"], ["labels/a_1.nii"], ["t1/A_1.png", "masks/A_1.png"], ["b.png"]]
)
def test_folders_that_are_no_tasks(tmp_path, files):
    touch(tmp_path, *files)
    with pytest.raises(ValueError, match=r"unknown layout of .* for slices such as A_047.png, for folders of these"):
        read_datalist(tmp_path)


def test_images_left_alone_by_the_split_are_no_problem_beside_other_pairs(tasks):
    touch(tasks, *(f"eye/{side}/{number}.png" for side in ("fixed", "moving") for number in range(40)))
    touch(tasks, "ct/images/A.nii")  # a patient of the eyes: y, z and A are split among all of them, some alone
    for seed in range(6):
        sections = read_datalist(tasks, fractions=SPLIT, seed=seed)
        assert all(len(set(pair["patient"])) == 2 for pair in select_pairs(sections) if pair["task"] == "ct")


# --- the key task -------------------------------------------------------------------------------------------------


def test_written_tasks_read_back_the_same(tasks):
    for pairing in ("paired", "fixed"):
        sections = read_datalist(tasks, pairing=pairing, fractions=TRAIN_ONLY, limits={"training": 20})
        write_datalist(tasks / "new.json", sections, tasks)
        assert read_datalist(tasks, "new.json") == sections
        assert {pair["task"] for pair in sections["training"]} == {"ct", "eye", "t1", "t2"}


@pytest.mark.parametrize(
    ("pairing", "expected"),
    [
        ("paired", ["a_to_b", "b_to_a", "c_to_d", "d_to_c"]),  # e has task t too, but is of the patient of c
        ("repeat", ["c_to_e", "e_to_c"]),
    ],
)
def test_single_images_form_pairs_within_one_task(tmp_path, pairing, expected):
    touch(tmp_path, *(f"{name}.nii" for name in "abcdef"))
    entries = [
        {"image": f"{name}.nii", "patient": patient} | task
        for name, patient, task in (
            ("c", "1", {"task": "t"}),
            ("a", "1", {}),
            ("d", "2", {"task": "t"}),
            ("b", "2", {}),
            ("f", "1", {"task": "u"}),
        )
    ]
    entries += [{"image": "e.nii", "patient": "1", "task": "t"}] if pairing == "repeat" else []
    pairs = read_datalist(tmp_path, write(tmp_path, {"test": entries}), pairing=pairing, limits=ALL)["test"]
    assert sorted(pair["pair_id"] for pair in pairs) == expected
    assert {pair["pair_id"]: pair.get("task") for pair in pairs}[expected[-1]] == "t"
    assert "task" not in {pair["pair_id"]: pair for pair in pairs}.get("a_to_b", {})


def test_one_patient_in_two_tasks_has_no_repeat_scan(tmp_path):
    touch(tmp_path, "t1/images/A.nii", "t2/images/A.nii")
    with pytest.raises(ValueError, match=r"no patient has two images: 2 image\(s\) of 1 patient\(s\)"):
        read_datalist(tmp_path, pairing="repeat")


@pytest.mark.parametrize("task", ["", 3, ["t"]])
def test_a_task_is_a_name(tmp_path, task):
    touch(tmp_path, "a.nii", "b.nii")
    entry = {"fixed_image": "a.nii", "moving_image": "b.nii", "task": task}
    with pytest.raises(ValueError, match=r"test\[0\]: task is .*, expected a name"):
        read_datalist(tmp_path, write(tmp_path, {"test": [entry]}))


# --- slices -------------------------------------------------------------------------------------------------------


def test_neighbouring_slices_of_one_volume_are_pairs(tmp_path):
    touch(tmp_path, *(f"A_{number:03d}.png" for number in (8, 9, 10, 12, 13)), "B_x_010.tif", "B_x_11.TIF", "C_001.nii")
    touch(tmp_path, "notes.txt", "._A_014.png", "A_014.png/inside.txt")
    assert [names[1:] for names in read(tmp_path)] == [
        ("A_008.png", "A_009.png"),
        ("A_009.png", "A_010.png"),
        ("A_012.png", "A_013.png"),
        ("B_x_010.tif", "B_x_11.TIF"),
    ]
    pairs = read_datalist(tmp_path, fractions=TRAIN_ONLY)["training"]
    assert [pair["patient"] for pair in pairs] == [("A",)] * 3 + [("B_x",)]
    assert "task" not in pairs[0]


def test_slices_are_single_images_for_other_pairings(tmp_path):
    touch(tmp_path, "A_1.png", "A_2.png", "B_5.png")
    assert [names[1:] for names in read(tmp_path, pairing="fixed")] == [
        ("A_1.png", "B_5.png"),
        ("A_2.png", "B_5.png"),
        ("B_5.png", "A_1.png"),
        ("B_5.png", "A_2.png"),
    ]
    assert [names[1:] for names in read(tmp_path, pairing="repeat")] == [("A_1.png", "A_2.png"), ("A_2.png", "A_1.png")]


def test_folders_beside_slices_are_told_not_to_count(tmp_path):
    """The labels beside slices were left out in silence, and the check of the data found no problem."""
    files = [f"A_00{number}.png" for number in range(3)]
    touch(tmp_path, *files, *(f"{folder}/{file}" for folder in ("labels", "landmarks") for file in files))
    with pytest.warns(DataWarning, match="/ is not used beside slices; name .* in a datalist") as told:
        assert len(read_datalist(tmp_path, fractions=(1.0, 0.0, 0.0))["training"]) == 2
    assert len(told) == 2


@pytest.mark.parametrize("rows", ["A,P\nB,P\n", "A_1,P\nA_2,P\nB,P\n"])
def test_patients_of_volumes_or_slices(tmp_path, rows):
    touch(tmp_path, "A_1.png", "A_2.png", "B_1.png", "B_2.png")
    (tmp_path / "patients.csv").write_text("image,patient\n" + rows)
    pairs = read_datalist(tmp_path)["training"]
    assert [pair["patient"] for pair in pairs] == [("P",), ("P",)]


@pytest.mark.parametrize(
    ("files", "rows", "message"),
    [
        (["atlas.png", "b.nii"], None, "2 image file(s) not named <volume>_<number>, the first is atlas.png"),
        (["A_02.png"], None, "A_02.png and A_2.png are both slice 2 of A; expected one file"),
        ([], "A_1,P\n", "patients.csv has no line for the volume A, or for each of its slices"),
        ([], "A_1,P\nA_2,Q\n", "patients.csv gives the volume A the patients P, Q; expected one"),
    ],
)
def test_bad_slices(tmp_path, files, rows, message):
    touch(tmp_path, "A_1.png", "A_2.png", *files)
    if rows:
        (tmp_path / "patients.csv").write_text("image,patient\n" + rows)
    (problem,) = survey(tmp_path)[1]
    assert problem.startswith(message)


# --- two sides ----------------------------------------------------------------------------------------------------


def test_short_names_of_the_two_sides(tmp_path):
    names = ["fixed/a.png", "moving/a.png", "fixed_labels/a.png", "moving_labels/a.png"]
    touch(tmp_path, *names, "fixed/b.png", "moving/b.png", "fixed_labels/b.png", "moving_labels/b.png")
    pair = read_datalist(tmp_path, fractions=TRAIN_ONLY)["training"][0]
    assert [pair[key] for key in ("fixed_image", "moving_image", "fixed_label", "moving_label")] == [
        str(tmp_path / name) for name in names
    ]
    assert [names[1:] for names in read(tmp_path, pairing="moving")] == [
        ("moving/a.png", "moving/b.png"),
        ("moving/b.png", "moving/a.png"),
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["fixed/a.png", "moving_images/a.png"],
            "has moving_images/ and fixed/; keep fixed_images/ and moving_images/, ",
        ),
        (["images/a.png", "moving/a.png"], "has images/ and fixed/ or moving/; keep one layout"),
        (["moving/a.png"], "has no fixed/, which the pairing 'paired' needs"),
        (["fixed/a.txt", "moving/a.txt"], "no image in fixed/ and moving/"),
        (["fixed/a.png", "fixed/b.png", "moving/a.png"], "pair b: no moving image moving/b; give both images one name"),
    ],
)
def test_bad_sides(tmp_path, files, message):
    touch(tmp_path, *files)
    with pytest.raises(ValueError, match=message):
        read_datalist(tmp_path)


# --- landmarks of a pair ------------------------------------------------------------------------------------------


@pytest.fixture
def marked(tmp_path):
    touch(tmp_path, *(f"{side}/{name}.png" for side in ("fixed", "moving") for name in "ab"))
    touch(tmp_path, "landmarks/a.csv", "landmarks/b.csv")
    return tmp_path


def test_landmarks_of_pairs(marked):
    sections = read_datalist(marked, fractions=TRAIN_ONLY)
    assert [pair["landmarks"] for pair in sections["training"]] == [f"{marked}/landmarks/{name}.csv" for name in "ab"]
    write_datalist(marked / "new.json", sections, marked)
    assert json.loads((marked / "new.json").read_text())["training"][0]["landmarks"] == "landmarks/a.csv"
    assert read_datalist(marked, "new.json") == sections


def test_landmarks_of_pairs_are_not_those_of_other_pairings(marked):
    pairs = read_datalist(marked, pairing="fixed", fractions=TRAIN_ONLY)["training"]
    assert not [key for pair in pairs for key in pair if "landmarks" in key]


@pytest.mark.parametrize(
    ("remove", "add", "message"),
    [
        ("landmarks/b.csv", "landmarks/b.txt", "landmarks/ has no file for the image b; add it"),
        (
            "README",
            "fixed_landmarks/a.csv",
            "has landmarks/ and fixed_landmarks/; keep landmarks/ for one file per pair",
        ),
    ],
)
def test_bad_folder_of_landmarks(marked, remove, add, message):
    (marked / remove).unlink(missing_ok=True)
    touch(marked, add, *(add.replace("a.csv", "b.csv"),))
    with pytest.raises(ValueError, match=message):
        read_datalist(marked, fractions=TRAIN_ONLY)


def test_bad_landmarks_of_a_listed_pair(marked):
    pair = {"fixed_image": "fixed/a.png", "moving_image": "moving/a.png", "landmarks": "landmarks/c.csv"}
    other = {"fixed_image": "fixed/b.png", "moving_image": "moving/b.png", "landmarks": "landmarks/a.csv"}
    path = write(marked, {"test": [pair, other | {"moving_landmarks": "landmarks/b.csv"}]})
    assert survey(marked, path)[1] == [
        "test[1]: landmarks of the pair and of its images; keep landmarks (one file of the pair), or fixed_landmarks "
        "and moving_landmarks (one per image)",
        f"test: landmarks not found: {marked}/landmarks/c.csv",
    ]


# --- real data ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "slices_2d").is_dir(), reason="needs ../shared/data/slices_2d")
def test_the_tasks_of_park():
    sections = read_datalist(SHARED / "slices_2d")
    pairs = select_pairs(sections)
    counts = Counter(pair["task"] for pair in pairs)
    assert counts.keys() == {"abdomen_ct", "brain_t1", "brain_t1gd", "brain_t2", "octa_choroid"}
    assert counts["octa_choroid"] == 60
    assert {pair["task"] for pair in sections["training"]} == counts.keys()
    groups = patients_of(sections)
    assert sum(map(len, groups)) == len(set().union(*groups)) == 4 + 2 + 60
    assert len({pair["pair_id"] for pair in pairs}) == len(pairs)


@pytest.mark.skipif(not (SHARED / "octa_scp").is_dir(), reason="needs ../shared/data/octa_scp")
def test_the_target_task_of_park():
    assert len(select_pairs(read_datalist(SHARED / "octa_scp/finetune"))) == 294
    test = select_pairs(read_datalist(SHARED / "octa_scp/test"))
    assert len(test) == 20
    assert all(Path(pair["landmarks"]).stem == Path(pair["fixed_image"]).stem for pair in test)


def test_numbered_volumes_are_no_slices(tmp_path):
    slices, volumes = tmp_path / "slices", tmp_path / "volumes"
    for folder, shape in ((slices, (6, 5, 1)), (volumes, (6, 5, 4))):
        folder.mkdir()
        for number in (1, 2):
            nib.save(nib.Nifti1Image(np.ones(shape, np.float32), np.eye(4)), folder / f"case_{number}.nii.gz")
    assert read(slices) == [(None, "case_1.nii.gz", "case_2.nii.gz")]
    with pytest.raises(ValueError, match="unknown layout"):
        read(volumes)


def test_the_check_counts_the_pairs_of_each_task(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (6, 5)).astype(np.uint8)
    for path in [f"mr/{patient}_{number}.png" for patient in "ABC" for number in (1, 2)] + ["eye/fixed/x.png"]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / path)
    (tmp_path / "eye/moving").mkdir()
    Image.fromarray(pixels).save(tmp_path / "eye/moving/x.png")
    lines = check_data(tmp_path).lines()
    table = [line.split() for line in lines]
    assert ["mr", "1", "1", "1"] in table
    assert ["eye", "1", "0", "0"] in table
    assert lines[-1] == "no problems"
