import json
import os
import re
from pathlib import Path

import pytest
from toys import touch

from bundle.data.datalist import announce, read_datalist, survey, write_datalist
from bundle.data.layouts import stem
from bundle.data.splits import require, select_pairs, split_patients
from bundle.system import DataWarning, one_line
from bundle.system.configurations import images_named

SHARED = Path(__file__).parents[2] / "shared" / "data"
ALL = {"training": None, "validation": None, "test": None}
TRAIN_ONLY = (1.0, 0.0, 0.0)


def write(root, content, name="list.json"):
    (root / name).write_text(json.dumps(content))
    return root / name


def images(root, count, prefix="images/"):
    touch(root, *(f"{prefix}c{number}.nii.gz" for number in range(count)))


def patients_of(sections):
    return {name: {p for pair in pairs for p in pair["patient"]} for name, pairs in sections.items()}


def lines_of(error):
    return str(error.value).splitlines()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/case.1.nii.gz", "case.1"),
        ("X.NRRD", "X"),
        ("p.csv", "p"),
        ("series.7", "series.7"),
        ("brain_t1", "brain_t1"),
        (".nii", ".nii"),
    ],
)
def test_stem_takes_off_image_suffixes_only(path, expected):
    assert stem(path) == expected


# --- datalist files -----------------------------------------------------------------------------------------------


def test_pair_gets_absolute_paths_default_id_and_stems_as_patients(tmp_path):
    touch(tmp_path, "us.nii.gz", "mr.nii.gz", "mr_label.nii.gz", "p.csv")
    entry = {
        "fixed_image": "us.nii.gz",
        "moving_image": str(tmp_path / "mr.nii.gz"),
        "moving_label": "mr_label.nii.gz",
        "fixed_landmarks": "p.csv",
        "fixed_label": None,
    }
    sections = read_datalist(tmp_path, write(tmp_path, {"name": "n", "authors": ["a"], "labels": {}, "test": [entry]}))
    assert sections == {
        "training": [],
        "validation": [],
        "test": [
            {
                "fixed_image": f"{tmp_path}/us.nii.gz",
                "moving_image": f"{tmp_path}/mr.nii.gz",
                "moving_label": f"{tmp_path}/mr_label.nii.gz",
                "fixed_landmarks": f"{tmp_path}/p.csv",
                "patient": ("mr", "us"),
                "pair_id": "mr_to_us",
            }
        ],
    }


def test_datalist_is_found_relative_to_the_data_set(tmp_path):
    touch(tmp_path, "a.nii", "b.nii")
    write(tmp_path, {"test": [{"fixed_image": "a.nii", "moving_image": "b.nii"}]}, "my_pairs.json")
    assert len(read_datalist(tmp_path, "my_pairs.json")["test"]) == 1


def test_single_images_form_ordered_pairs_of_different_patients(tmp_path):
    touch(tmp_path, *(f"{name}{kind}.nii" for name in "abc" for kind in ("", "_l")))
    entries = [
        {"image": f"{name}.nii", "label": f"{name}_l.nii", "patient": patient}
        for name, patient in zip("abc", "112", strict=True)
    ]
    pairs = read_datalist(tmp_path, write(tmp_path, {"training": entries}))["training"]
    assert [pair["pair_id"] for pair in pairs] == ["a_to_c", "b_to_c", "c_to_a", "c_to_b"]
    assert [pair["patient"] for pair in pairs] == [("1", "2"), ("1", "2"), ("2", "1"), ("2", "1")]
    assert pairs[0]["fixed_label"] == f"{tmp_path}/c_l.nii"
    assert pairs[0]["moving_label"] == f"{tmp_path}/a_l.nii"


def test_pairs_stay_as_listed_and_singles_are_limited(tmp_path):
    images(tmp_path, 5, "")
    entries = [{"fixed_image": "c0.nii.gz", "moving_image": "c1.nii.gz", "pair_id": "mine", "patient": ["p", 7]}]
    entries += [f"c{number}.nii.gz" for number in (2, 3, 4)]  # a path alone is a single image, as in MONAI
    pairs = read_datalist(tmp_path, write(tmp_path, {"test": entries}), limits={"test": 2})["test"]
    assert pairs[0]["pair_id"] == "mine"
    assert pairs[0]["patient"] == ("p", "7")
    assert len(pairs) == 3


def test_limited_sample_is_seeded_distinct_and_between_patients(tmp_path):
    images(tmp_path, 9)
    rows = [f"c{number},p{number // 3}" for number in range(9)]
    (tmp_path / "patients.csv").write_text("\n".join(["image,patient", *rows]))
    full = read_datalist(tmp_path, fractions=TRAIN_ONLY)["training"]
    assert len(full) == 9 * 6
    assert all(len(set(pair["patient"])) == 2 for pair in full)
    first, again, other = (
        read_datalist(tmp_path, fractions=TRAIN_ONLY, limits={"training": 20}, seed=seed)["training"]
        for seed in (0, 0, 1)
    )
    assert first == again != other
    assert len({pair["pair_id"] for pair in first}) == 20
    assert all(pair in full for pair in first)


def test_a_limit_does_not_need_the_list_of_all_pairs(tmp_path):
    # 3000 images have 9 million ordered pairs, which would take gigabytes.
    images(tmp_path, 3000)
    assert len(read_datalist(tmp_path, fractions=TRAIN_ONLY, limits={"training": 10})["training"]) == 10


def test_same_file_names_in_patient_folders_are_different_patients(tmp_path):
    touch(tmp_path, *(f"s{number}/{name}.nii" for number in (1, 2) for name in ("t1", "t2")))
    entries = [{"fixed_image": f"s{number}/t1.nii", "moving_image": f"s{number}/t2.nii"} for number in (1, 2)]
    sections = read_datalist(tmp_path, write(tmp_path, {"training": entries[:1], "test": entries[1:]}))
    assert sections["training"][0]["patient"] == ("s1/t2", "s1/t1")
    assert [select_pairs(sections, name)[0]["pair_id"] for name in ("training", "test")] == [
        "s1_t2_to_s1_t1",
        "s2_t2_to_s2_t1",
    ]


@pytest.mark.parametrize("others", [[], [{"fixed_image": "c.nii", "moving_image": "C/us.nii"}]])
def test_two_images_of_one_file_name_are_two_patients_whatever_else_is_listed(tmp_path, others):
    """They were one, on whom all landmarks were scored, unless another entry had an image of that name."""
    touch(tmp_path, "A/us.nii", "B/us.nii", "C/us.nii", "c.nii")
    pair = {"fixed_image": "A/us.nii", "moving_image": "B/us.nii"}
    found, *_ = read_datalist(tmp_path, write(tmp_path, {"test": [pair, *others]}))["test"]
    assert found["patient"] == ("B/us", "A/us")
    alone = {"fixed_image": "A/us.nii", "moving_image": "A/us.nii"}
    assert read_datalist(tmp_path, write(tmp_path, {"test": [alone]}))["test"][0]["patient"] == ("us",)


def test_two_images_of_a_command_are_two_patients_in_any_folder(tmp_path, monkeypatch):
    """The patients.csv of the current folder counted, whatever images were named, and nowhere else."""
    touch(tmp_path, "a.nii", "b.nii")
    (tmp_path / "patients.csv").write_text("image,patient\na,A\nb,A\n")
    monkeypatch.chdir(tmp_path)
    for moving, patients in (("b.nii", ("moving", "fixed")), ("./a.nii", ("one",))):
        named = images_named(tmp_path, "a.nii", moving, {})
        (pair,) = read_datalist(named["dataset_dir"], named["datalist"])["test"]
        assert pair["patient"] == patients


@pytest.mark.parametrize("again", ["x/../a.nii", "./b.nii", "link.nii", "linked/b.nii", "hard.nii"])
def test_an_image_is_one_patient_however_its_path_is_written(tmp_path, again):
    """It was in training and in test, in silence."""
    touch(tmp_path, "a.nii", "b.nii", "c.nii", "x/d.nii")
    (tmp_path / "link.nii").symlink_to(tmp_path / "a.nii")
    (tmp_path / "linked").symlink_to(tmp_path)
    (tmp_path / "hard.nii").hardlink_to(tmp_path / "a.nii")
    entries = [{"fixed_image": name, "moving_image": other} for name, other in (("a.nii", "b.nii"), (again, "c.nii"))]
    said = "patient [ab] is in training and in test; move all images of a patient .* gets another patient in each"
    with pytest.raises(ValueError, match=said):
        read_datalist(tmp_path, write(tmp_path, {"training": entries[:1], "test": entries[1:]}))
    # One that is meant to be shared has a name in each: with the other patient alone, a pair would be of one.
    pairs = {
        section: [entry | {"patient": [f"atlas of {section}", name]}]
        for section, entry, name in zip(("training", "test"), entries, "PQ", strict=True)
    }
    assert patients_of(read_datalist(tmp_path, write(tmp_path, pairs)))["test"] == {"Q", "atlas of test"}


@pytest.mark.parametrize("again", ["./a.nii", "link.nii", "hard.nii"])
def test_an_image_is_no_repeat_scan_of_itself_under_another_name(tmp_path, again):
    """Through a link it was a repeat pair with itself, of a DSC of 1, in silence."""
    touch(tmp_path, "a.nii", "b.nii")
    (tmp_path / "link.nii").symlink_to(tmp_path / "a.nii")
    (tmp_path / "hard.nii").hardlink_to(tmp_path / "a.nii")
    images = [{"image": name, "patient": "P"} for name in ("a.nii", again, "b.nii")]
    with pytest.raises(ValueError, match="image listed 2 times: .*a.nii; list each image once"):
        read_datalist(tmp_path, write(tmp_path, {"test": images}), pairing="repeat")


def test_default_pair_id_is_fit_for_a_folder_name(tmp_path):
    touch(tmp_path, "my scan (1).nii", "é.nii")
    entry = {"fixed_image": "é.nii", "moving_image": "my scan (1).nii"}
    pair = read_datalist(tmp_path, write(tmp_path, {"test": [entry]}))["test"][0]
    assert pair["pair_id"] == "my_scan__1__to_e"


def test_names_that_differ_make_names_of_pairs_that_differ(tmp_path):
    """Letters that only one of two names has, in any script, and characters that become ``_``."""
    names = ["ä", "ö", "u\u0308", "日本", "中国", "a b", "a_b", "A_b"]
    touch(tmp_path, *(f"{name}.nii" for name in names))
    pairs = [{"fixed_image": f"{fixed}.nii", "moving_image": "ä.nii"} for fixed in names[1:]]
    found = read_datalist(tmp_path, write(tmp_path, {"test": pairs}))["test"]
    checksum = "-[0-9a-f]{16}"
    expected = ["oe", "ue", f"__{checksum}", f"__{checksum}", *[f"[aA]_b{checksum}"] * 3]
    for pair, name in zip(found, expected, strict=True):
        assert re.fullmatch(f"ae_to_{name}", pair["pair_id"])
    assert len({pair["pair_id"].lower() for pair in found}) == len(found)


def test_patients_csv_serves_datalists_too(tmp_path):
    images(tmp_path, 4, "")
    (tmp_path / "patients.csv").write_text("image,patient\nc0,A\nc1,A\n")
    path = write(tmp_path, {"training": ["c0.nii.gz", "c2.nii.gz"], "test": ["c1.nii.gz", "c3.nii.gz"]})
    said = "c2.nii.gz and 1 more: not in patients.csv, so it counts as a patient of its own; add its line"
    with pytest.warns(DataWarning, match=said), pytest.raises(ValueError, match="patient A is in training and in test"):
        read_datalist(tmp_path, path)


def test_a_list_whose_patients_are_known_is_told_nothing(tmp_path, recwarn):
    images(tmp_path, 4, "")
    (tmp_path / "patients.csv").write_text("image,patient\nc0,A\nc1,B\n")
    single = {"image": "c2.nii.gz", "patient": "C"}
    pair = {"fixed_image": "c2.nii.gz", "moving_image": "c3.nii.gz", "patient": ["C", "D"]}
    read_datalist(tmp_path, write(tmp_path, {"training": ["c0.nii.gz", "c1.nii.gz", single, pair]}))
    assert not [one for one in recwarn if one.category is DataWarning]


# --- folders ------------------------------------------------------------------------------------------------------


def paired_folders(root):
    """Eight names of five patients: a0 a1 | b0 | c0 | d0 d1 | e0 e1."""
    names = ["a0", "a1", "b0", "c0", "d0", "d1", "e0", "e1"]
    for folder in ("fixed_images", "moving_images", "fixed_labels", "moving_labels"):
        touch(root, *(f"{folder}/{name}.nii.gz" for name in names), f"{folder}/.DS_Store", f"{folder}/notes.md")
    (root / "patients.csv").write_text("\n".join(["image,patient", *(f"{name},{name[0]}" for name in names)]))
    return root


@pytest.fixture
def paired(tmp_path):
    return paired_folders(tmp_path)


def test_images_that_are_in_a_cloud_alone_are_not_left_out(paired):
    touch(paired, "fixed_images/.f0.nii.gz.icloud", "moving_labels/.readme.md.icloud")
    with pytest.raises(ValueError, match="fixed_images/.f0.nii.gz.icloud is in iCloud alone; download it$"):
        read_datalist(paired)


def test_paired_folders(paired):
    sections = read_datalist(paired, fractions=(0.6, 0.2, 0.2))
    pairs = select_pairs(sections)
    assert len(pairs) == 8
    assert {len(found) for found in patients_of(sections).values()} == {3, 1}
    pair = next(pair for pair in pairs if pair["pair_id"] == "a1_to_a1")
    assert pair["patient"] == ("a",)
    assert pair["fixed_label"] == f"{paired}/fixed_labels/a1.nii.gz"
    assert pair["moving_image"] == f"{paired}/moving_images/a1.nii.gz"


@pytest.mark.parametrize("side", ["fixed", "moving"])
def test_pairs_among_one_side_are_between_patients(paired, side):
    pairs = read_datalist(paired, pairing=side, fractions=TRAIN_ONLY)["training"]
    assert len(pairs) == 64 - (4 + 1 + 1 + 4 + 4)
    assert all(Path(pair[key]).parent.name == f"{side}_images" for pair in pairs for key in pair if "_image" in key)
    assert all(len(set(pair["patient"])) == 2 for pair in pairs)


def test_split_keeps_patients_apart_and_is_seeded(paired):
    first, again = (read_datalist(paired, fractions=(0.4, 0.2, 0.4), seed=3) for _ in range(2))
    assert first == again
    groups = list(patients_of(first).values())
    assert sum(map(len, groups)) == len(set().union(*groups)) == 5
    assert any(patients_of(read_datalist(paired, seed=seed)) != patients_of(first) for seed in range(4, 8))


@pytest.mark.parametrize(
    ("count", "fractions", "least", "expected"),
    [
        (61, (0.7, 0.15, 0.15), 2, (43, 9, 9)),
        (6, (0.7, 0.15, 0.15), 2, (2, 2, 2)),
        (5, (0.7, 0.15, 0.15), 2, (3, 2, 0)),  # too few for three: test is left empty first
        (3, (0.7, 0.15, 0.15), 2, (3, 0, 0)),
        (2, (0.7, 0.15, 0.15), 1, (1, 1, 0)),
        (1, (0.7, 0.15, 0.15), 1, (1, 0, 0)),
        (4, (0.0, 0.0, 1.0), 2, (0, 0, 4)),
        (10, (0.1, 0.45, 0.45), 2, (2, 4, 4)),
    ],
)
def test_split_counts(count, fractions, least, expected):
    sections = list(split_patients(map(str, range(count)), fractions, least, seed=0).values())
    assert tuple(sections.count(name) for name in ("training", "validation", "test")) == expected


def test_one_patient_gives_no_pair_between_patients(tmp_path):
    images(tmp_path, 1)
    with pytest.raises(ValueError, match=r"training has no pair: 1 patient\(s\) found, its pairs need at least 2"):
        read_datalist(tmp_path)


def test_dicom_series_are_folders_and_labels_match_by_name(tmp_path):
    touch(tmp_path, "images/s1/0.dcm", "images/s2/0.dcm", "labels/s1.nii.gz", "labels/s2.nrrd", "masks/s1.nii")
    touch(tmp_path, "masks/s2.nii", "landmarks/s1.csv", "landmarks/s2.csv")
    pair = read_datalist(tmp_path, fractions=TRAIN_ONLY)["training"][0]
    assert {key: value.removeprefix(f"{tmp_path}/") for key, value in pair.items() if key != "patient"} == {
        "fixed_image": "images/s2",
        "moving_image": "images/s1",
        "fixed_label": "labels/s2.nrrd",
        "moving_label": "labels/s1.nii.gz",
        "fixed_mask": "masks/s2.nii",
        "moving_mask": "masks/s1.nii",
        "fixed_landmarks": "landmarks/s2.csv",
        "moving_landmarks": "landmarks/s1.csv",
        "pair_id": "s1_to_s2",
    }


# --- repeat scans -------------------------------------------------------------------------------------------------


def test_repeat_pairs_are_ordered_and_of_different_fixed_images_of_one_patient(paired):
    pairs = read_datalist(paired, pairing="repeat", fractions=TRAIN_ONLY)["training"]
    assert [pair["pair_id"] for pair in pairs] == [
        "a0_to_a1",
        "a1_to_a0",
        "d0_to_d1",
        "d1_to_d0",
        "e0_to_e1",
        "e1_to_e0",
    ]
    assert [pair["patient"] for pair in pairs] == [(name,) for name in "aaddee"]
    assert pairs[0] == {
        "moving_image": f"{paired}/fixed_images/a0.nii.gz",
        "fixed_image": f"{paired}/fixed_images/a1.nii.gz",
        "moving_label": f"{paired}/fixed_labels/a0.nii.gz",
        "fixed_label": f"{paired}/fixed_labels/a1.nii.gz",
        "patient": ("a",),
        "pair_id": "a0_to_a1",
    }
    (paired / "new").mkdir()
    write_datalist(paired / "new/list.json", {"training": pairs}, paired)
    assert read_datalist(paired, "new/list.json", pairing="repeat")["training"] == pairs


@pytest.mark.parametrize("count", [3, 5, 6, 40])  # patients: too few for three sections, for two, just enough, many
def test_repeat_splits_as_between_patients(tmp_path, count):
    names = [(f"c{number}_{scan}", f"p{number}") for number in range(count) for scan in range(2)]
    touch(tmp_path, *(f"fixed_images/{name}.nii" for name, _ in names))
    (tmp_path / "patients.csv").write_text("\n".join(["image,patient", *map(",".join, names)]))
    for seed in range(3):
        fixed, repeat = (
            patients_of(read_datalist(tmp_path, pairing=pairing, fractions=(0.75, 0.05, 0.2), limits=ALL, seed=seed))
            for pairing in ("fixed", "repeat")
        )
        assert fixed == repeat
        assert sum(map(len, repeat.values())) == count


def repeated(root, scans):
    """``images/`` of patients 0, 1 ... with so many scans each: ``p0s0``, ``p0s1`` ..."""
    names = [(f"p{patient}s{scan}", str(patient)) for patient, count in enumerate(scans) for scan in range(count)]
    touch(root, *(f"images/{name}.nii" for name, _ in names))
    (root / "patients.csv").write_text("\n".join(["image,patient", *map(",".join, names)]))
    return [{"image": f"images/{name}.nii"} for name, _ in names]


def test_repeat_among_images_of_one_folder(tmp_path):
    repeated(tmp_path, [3, 1, 2])
    pairs = read_datalist(tmp_path, pairing="repeat", fractions=TRAIN_ONLY)["training"]
    assert [pair["pair_id"] for pair in pairs] == [
        *(f"p0s{moving}_to_p0s{fixed}" for moving, fixed in ((0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1))),
        "p2s0_to_p2s1",
        "p2s1_to_p2s0",
    ]


def test_repeat_needs_one_patient_only(tmp_path):
    repeated(tmp_path, [2])
    sections = read_datalist(tmp_path, pairing="repeat")
    assert {name: len(pairs) for name, pairs in sections.items()} == {"training": 2, "validation": 0, "test": 0}


def test_repeat_among_listed_images_leaves_listed_pairs_alone(tmp_path):
    entries = repeated(tmp_path, [2, 1, 2, 1])
    between = {"moving_image": entries[3]["image"], "fixed_image": entries[5]["image"]}
    path = write(tmp_path, {"training": entries[:3], "validation": entries[5:], "test": [between]})
    (tmp_path / "patients.csv").write_text("image,patient\np0s0,0\np0s1,0\n")
    with pytest.raises(ValueError, match="patient p3s0 is in validation and in test"):
        read_datalist(tmp_path, path, pairing="repeat")
    write(tmp_path, {"training": entries[:3], "validation": entries[4:5], "test": [between]})
    sections = read_datalist(tmp_path, path, pairing="repeat")
    assert {name: [pair["pair_id"] for pair in pairs] for name, pairs in sections.items()} == {
        "training": ["p0s0_to_p0s1", "p0s1_to_p0s0"],
        "validation": [],
        "test": ["p2s0_to_p3s0"],
    }


def test_repeat_sample_is_seeded_distinct_and_within_patients(tmp_path):
    repeated(tmp_path, [4, 1, 3, 2])
    options = {"pairing": "repeat", "fractions": TRAIN_ONLY}
    full = read_datalist(tmp_path, **options)["training"]
    assert len(full) == 4 * 3 + 3 * 2 + 2 * 1
    first, again, other = (
        read_datalist(tmp_path, **options, limits={"training": 9}, seed=seed)["training"] for seed in (0, 0, 1)
    )
    assert first == again != other
    assert len({pair["pair_id"] for pair in first}) == 9
    assert all(pair in full and pair["moving_image"] != pair["fixed_image"] for pair in first)


def test_no_repeat_scan_at_all_is_one_error(tmp_path):
    images(tmp_path, 6)
    with pytest.raises(ValueError) as error:
        read_datalist(tmp_path, pairing="repeat")
    assert lines_of(error) == [
        "no patient has two images: 6 image(s) of 6 patient(s); the pairing 'repeat' needs repeat scans, with "
        "patients.csv or the entries' patient saying whose they are"
    ]


def test_an_image_is_no_repeat_scan_of_itself(tmp_path):
    entries = repeated(tmp_path, [2, 1])
    path = write(tmp_path, {"test": [*entries, entries[0]]})
    with pytest.raises(ValueError, match=r"image listed 2 times: .*images/p0s0.nii; list each image once"):
        read_datalist(tmp_path, path, pairing="repeat", limits={"test": 1})


# --- Learn2Reg ----------------------------------------------------------------------------------------------------


def test_learn2reg_singles_lose_the_held_out_images(tmp_path):
    names = [f"imagesTr/OASIS_000{number}_0000.nii.gz" for number in range(1, 6)]
    touch(tmp_path, *names, *(name.replace("images", "labels") for name in names))
    touch(
        tmp_path, "keypointsTr/OASIS_0004_0000.csv", "masksTr/OASIS_0005_0000.nii.gz", "imagesTs/OASIS_0009_0000.nii.gz"
    )
    content = {
        "name": "OASIS",
        "numTraining": 5,
        "training": [{"image": f"./{name}"} for name in names],
        "test": [{"image": "./imagesTs/OASIS_0009_0000.nii.gz"}],
        "registration_val": [{"fixed": names[3], "moving": names[4]}],
    }
    write(tmp_path, content, "OASIS_dataset.json")
    sections = read_datalist(tmp_path)
    assert patients_of(sections) == {
        "training": {"0001", "0002", "0003"},
        "validation": {"0004", "0005"},
        "test": set(),
    }
    assert len(sections["training"]) == 6
    assert sections["validation"][0] == {
        "fixed_image": f"{tmp_path}/{names[3]}",
        "moving_image": f"{tmp_path}/{names[4]}",
        "fixed_label": f"{tmp_path}/labelsTr/OASIS_0004_0000.nii.gz",
        "moving_label": f"{tmp_path}/labelsTr/OASIS_0005_0000.nii.gz",
        "moving_mask": f"{tmp_path}/masksTr/OASIS_0005_0000.nii.gz",
        "fixed_landmarks": f"{tmp_path}/keypointsTr/OASIS_0004_0000.csv",
        "patient": ("0005", "0004"),
        "pair_id": "OASIS_0005_0000_to_OASIS_0004_0000",
    }


def test_learn2reg_pairs_within_patients(tmp_path):
    pairs = [
        {side: f"./images{kind}/NLST_{number:04d}_000{time}.nii.gz" for side, time in (("fixed", 0), ("moving", 1))}
        for number, kind in ((1, "Tr"), (2, "Tr"), (7, "Ts"))
    ]
    touch(tmp_path, *(path for pair in pairs for path in pair.values()))
    content = {"training_paired_images": pairs[:2], "registration_val": pairs[1:2], "registration_test": pairs[2:]}
    sections = read_datalist(tmp_path, write(tmp_path, content))
    assert patients_of(sections) == {"training": {"0001"}, "validation": {"0002"}, "test": {"0007"}}


# --- writing and choosing -----------------------------------------------------------------------------------------


def test_written_pairs_read_back_the_same(paired, tmp_path):
    outside = tmp_path / "outside"
    touch(outside, "x.nii", "y.nii")
    sections = read_datalist(paired, pairing="fixed", fractions=(0.4, 0.6, 0.0))
    entry = {"fixed_image": str(outside / "x.nii"), "moving_image": str(outside / "y.nii")}
    data = paired / "fixed_images"
    sections["test"] = read_datalist(data, write(tmp_path, {"test": [entry]}))["test"]
    path = tmp_path / "new" / "list.json"
    for _ in range(2):  # the second time over the first
        write_datalist(path, sections, data)
        assert read_datalist(data, path) == sections
    written = json.loads(path.read_text())
    assert written["training"][0]["fixed_image"].count("/") == 0
    assert written["test"][0]["fixed_image"] == str(outside / "x.nii")
    assert [file.name for file in path.parent.iterdir()] == ["list.json"]


def test_failed_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "list.json"
    path.write_text("old")

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_datalist(path, {"training": []}, tmp_path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("list.json", "old")]


def test_select_and_require():
    sections = {"training": [], "test": [{"pair_id": "a"}]}
    assert select_pairs(sections) == select_pairs(sections, "test") == [{"pair_id": "a"}]
    landmarks = {"landmarks": "a.csv", "fixed_landmarks": "b.csv"}
    assert select_pairs({"test": [{"pair_id": "a", **landmarks}]}, landmarks=False) == [{"pair_id": "a"}]
    require(sections, "test")
    with pytest.raises(ValueError, match=r"no training pairs \(found: training 0, test 1\)"):
        require(sections, "training", "test")
    with pytest.raises(ValueError, match="no training pairs"):
        select_pairs(sections, "training")
    with pytest.raises(ValueError, match="no section 'tset'; expected one of training, test"):
        select_pairs(sections, "tset")
    with pytest.raises(ValueError, match="no pairs"):
        select_pairs({"training": []})


# --- bad input ----------------------------------------------------------------------------------------------------


def test_every_problem_is_named_at_once(tmp_path):
    images(tmp_path, 6, "")
    pair = {"fixed_image": "c0.nii.gz", "moving_image": "c1.nii.gz", "patient": "P"}
    content = {
        "training": [
            pair | {"pair_id": "one"},
            pair | {"pair_id": "one", "fixed_lable": "c0.nii.gz"},
            {"fixed_image": "c0.nii.gz", "fixed_label": "c1.nii.gz"},
            {"image": "c2.nii.gz", "pair_id": "x", "patient": "Q"},
            {"image": "gone.nii.gz"},
            17,
            pair | {"pair_id": "../../etc"},
            pair | {"moving_image": ["c1.nii.gz"]},
            {"image": "c3.nii.gz", "patient": ["A", "B"]},
            {"fixed_image": "c4.nii.gz", "moving_image": "c5.nii.gz", "patient": ["A", "B", "C"]},
        ],
        "validation": {},
        "test": [pair | {"pair_id": "other"}],
    }
    with pytest.raises(ValueError) as error:
        read_datalist(tmp_path, write(tmp_path, content))
    first, *lines = lines_of(error)
    assert first == f"{len(lines)} problems in the data set {tmp_path}:"
    expected = [
        "training[1]: unknown key 'fixed_lable', known are fixed_image, moving_image, fixed_label",
        "training[2]: no moving_image; a pair needs moving_image and fixed_image",
        "training[3]: unknown key 'pair_id', known are image, label, mask, landmarks, patient",
        "training[5] is a int, expected an object",
        "training[6]: pair_id is '../../etc', expected a letter or digit",
        "training[7]: moving_image is ['c1.nii.gz'], expected the path of one file",
        "training[8]: patient is ['A', 'B'], expected one patient",
        "training[9]: patient is ['A', 'B', 'C'], expected a patient or a list of patients (moving, fixed), by name",
        "validation is a dict, expected a list of entries",
        f"training: image not found: {tmp_path}/gone.nii.gz",
        "patient P is in training and in test",
        "pair_id one belongs to 2 pairs",
    ]
    for line, start in zip(lines, expected, strict=True):
        assert line.strip().startswith(start)


def test_a_file_missing_in_many_pairs_is_named_once(tmp_path):
    images(tmp_path, 3, "")
    entries = [{"fixed_image": "no.nii", "moving_image": f"c{number}.nii.gz"} for number in range(3)]
    with pytest.raises(ValueError) as error:
        read_datalist(tmp_path, write(tmp_path, {"test": entries}))
    assert lines_of(error) == [f"test: fixed_image not found: {tmp_path}/no.nii"]


def test_survey_returns_what_can_be_read(tmp_path):
    images(tmp_path, 2, "")
    entries = [{"fixed_image": "c0.nii.gz", "moving_image": "c1.nii.gz"}, {"fixed_image": "c0.nii.gz"}]
    sections, problems = survey(tmp_path, write(tmp_path, {"test": entries}))
    assert len(sections["test"]) == len(problems) == 1


@pytest.mark.parametrize("bad", ["..", ".hidden", "a/b", "a b", "", "a\n", 5])
def test_pair_id_must_be_a_plain_folder_name(tmp_path, bad):
    images(tmp_path, 2, "")
    entry = {"fixed_image": "c0.nii.gz", "moving_image": "c1.nii.gz", "pair_id": bad}
    with pytest.raises(ValueError, match="pair_id is"):
        read_datalist(tmp_path, write(tmp_path, {"test": [entry]}))


def test_problems_are_separate_in_one_line_too(tmp_path):
    images(tmp_path, 1, "")
    entries = [{"image": "c0.nii.gz"}, {"image": "x.nii.gz"}, 5]
    with pytest.raises(ValueError) as error:
        read_datalist(tmp_path, write(tmp_path, {"test": entries}))
    first, second = (line.strip() for line in lines_of(error)[1:])
    assert first.endswith(";") and not second.endswith(";")
    assert one_line(error.value).endswith(f": {first} {second}")


def test_pair_listed_twice(tmp_path):
    images(tmp_path, 2, "")
    entry = {"fixed_image": "c0.nii.gz", "moving_image": "c1.nii.gz"}
    with pytest.raises(ValueError, match="pair_id c1_to_c0 belongs to 2 pairs"):
        read_datalist(tmp_path, write(tmp_path, {"test": [entry, entry]}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "holds a list, expected an object of lists"),
        ('{"test": [], "test": []}', "list.json: names 'test' twice; keep one of them"),
        ('{"test": [{"image": "c0.nii.gz", "image": "c1.nii.gz"}]}', "list.json: names 'image' twice; keep one of"),
        ('{"train": [{"image": "a"}]}', "has 'train', expected lists under training, validation, test"),
        ("{}", "has nothing, expected lists under"),
        ('{"test": ["c0.nii.gz"]}', "test: single images of one patient form no pair"),
        ('{"training_paired_images": [{"fixed": "c0.nii.gz"}]}', "unknown key 'fixed'"),
        ('{"registration_val": [], "training": [5]}', r"training\[0\] is a int"),
    ],
)
def test_bad_datalist_file(tmp_path, text, message):
    images(tmp_path, 2, "")
    (tmp_path / "list.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_datalist(tmp_path, tmp_path / "list.json")


def test_folders_of_nnunet_are_told_what_to_become(tmp_path):
    images(tmp_path, 2, "imagesTr/")
    content = {"channel_names": {"0": "T2"}, "labels": {"background": 0}, "numTraining": 2, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="expected lists under .*; of nnU-Net's folders, put imagesTr into images/"):
        read_datalist(tmp_path)


def test_an_image_is_no_datalist(tmp_path):
    """``register IMAGE`` without the moving one takes the image for a datalist."""
    images(tmp_path, 1, "")
    with pytest.raises(ValueError, match="c0.nii.gz is an image, expected a datalist .*the moving image is missing"):
        read_datalist(tmp_path, tmp_path / "c0.nii.gz")


def test_paths_of_windows_are_told_from_missing_files(tmp_path):
    images(tmp_path, 1)
    path = write(tmp_path, {"test": [{"moving_image": r"images\c0.nii.gz", "fixed_image": r"images\c1.nii.gz"}]})
    with pytest.raises(ValueError) as error:
        read_datalist(tmp_path, path)
    missing, there = sorted(line.rstrip(";") for line in lines_of(error)[1:])
    assert missing.endswith("c1.nii.gz")
    assert there.endswith("c0.nii.gz; write / for \\ in it")


@pytest.mark.parametrize(
    "name", ["M\u00fcller 1.nii.gz", "MU\u0308LLER 1.NII.GZ", "mu\u0308ller 1.nii.gz ", '"Mu\u0308ller 1.nii.gz"']
)
def test_a_missing_file_that_is_spelt_otherwise_is_named(tmp_path, name):
    images(tmp_path, 1)
    (tmp_path / "images/c0.nii.gz").rename(tmp_path / "images/Mu\u0308ller 1.nii.gz")
    path = write(tmp_path, {"test": [{"moving_image": f"images/{name}", "fixed_image": "images/c0.nii.gz"}]})
    with pytest.raises(ValueError) as error:
        read_datalist(tmp_path, path)
    gone, other = sorted(line.rstrip(";") for line in lines_of(error)[1:])
    assert gone.endswith("c0.nii.gz")
    assert other.endswith("; there is 'Mu\\u0308ller 1.nii.gz', spelt otherwise")


def test_a_link_that_leads_nowhere_is_not_called_spelt_otherwise(tmp_path):
    images(tmp_path, 2, "")
    (tmp_path / "lost.nii.gz").symlink_to(tmp_path / ".git/annex/objects/lost")
    content = {"test": [{"fixed_image": "c0.nii.gz", "moving_image": "lost.nii.gz"}]}
    with pytest.raises(ValueError, match=r"lost.nii.gz; a link that leads nowhere; get its content, or copy the file$"):
        read_datalist(tmp_path, write(tmp_path, content))


def test_names_of_the_same_letters_belong_together_whatever_their_characters(tmp_path):
    one, two = "M\u00fcller", "Mu\u0308ller"
    folders = {"fixed_images": one, "moving_images": two, "fixed_labels": two, "moving_labels": one}
    touch(tmp_path, *(f"{folder}/{name}.nii.gz" for folder, name in folders.items()))
    (tmp_path / "patients.csv").write_text(f"image,patient\n{two},P1\n", encoding="utf-8")
    (pair,) = read_datalist(tmp_path, pairing="paired", fractions=(0, 0, 1))["test"]
    assert pair["patient"] == ("P1",)
    for folder, name in folders.items():
        assert pair[folder.removesuffix("s")] == f"{tmp_path}/{folder}/{name}.nii.gz"


def test_missing_data_set_and_datalist(tmp_path):
    with pytest.raises(FileNotFoundError, match="dataset_dir is not a folder"):
        read_datalist(tmp_path / "no")
    with pytest.raises(FileNotFoundError, match="datalist not found"):
        read_datalist(tmp_path, "no.json")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairing": "both"}, "pairing is 'both', expected one of paired, fixed, moving, repeat"),
        ({"fractions": (0.5, 0.2, 0.2)}, "sum to 1"),
        ({"fractions": (0.5, 0.5)}, "three shares"),
        ({"limits": {"train": 3}}, "limits has 'train'"),
        ({"limits": {"test": -1}}, "a number >= 0"),
    ],
)
def test_bad_options(tmp_path, options, message):
    images(tmp_path, 2)
    with pytest.raises(ValueError, match=message):
        read_datalist(tmp_path, **options)


def test_the_folder_of_the_images_in_place_of_that_of_the_data_set(tmp_path):
    images(tmp_path, 2)
    with pytest.raises(ValueError, match="; give the folder above, which holds images/$"):
        read_datalist(tmp_path / "images")


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (
            ["a.nii"],
            {},
            "unknown layout of .*looked for fixed_images/ and moving_images/, for images/.*; "
            "name a datalist, or put a.nii and the other images into images/$",
        ),
        (
            ["Images/a.nii", "Labels/a.nii"],
            {},
            "found Images, Labels, whose names are written in small letters; name a",
        ),
        (["a_dataset.json", "dataset.json"], {}, "found a_dataset.json, dataset.json"),
        (["images/a.nii", "fixed_images/a.nii"], {}, "keep one layout"),
        (["fixed_images/a.nii"], {}, "has no moving_images/, which the pairing 'paired' needs"),
        (["moving_images/a.nii"], {"pairing": "repeat"}, "has no fixed_images/, which the pairing 'repeat' needs"),
        (["images/a.txt"], {}, "no image in images/"),
        (["images/a.nii", "images/a.nrrd", "images/b.nii"], {}, "has a.nii and a.nrrd; expected one file per name"),
        (["images/a.nii", "images/b.nii", "labels/a.nii"], {}, "labels/ has no file for the image b"),
        (
            ["images/a.nii", "images/b.nii", "labels/a.nii", "labels/b_Seg.nii.gz"],
            {},
            "^labels/ has no file for the image b; found b_Seg.nii.gz, rename it to b.nii.gz$",
        ),
        (
            ["fixed/a.nii", "moving/a.nii", "moving/a-mask.nrrd"],
            {},
            "^moving/a-mask.nrrd looks like the label of a; move it to moving_labels/a.nrrd$",
        ),
        (["images/a.nii", "images/a_label.nii", "images/b.nii"], {}, "looks like .* of a; move it to labels/a.nii$"),
        (["fixed_images/a.nii", "fixed_images/b.nii", "moving_images/a.nii"], {}, "pair b: no moving image"),
    ],
)
def test_bad_folders(tmp_path, files, options, message):
    touch(tmp_path, *files)
    with pytest.raises(ValueError, match=message):
        read_datalist(tmp_path, **options)


@pytest.mark.parametrize("half", ["img", "img.gz", "IMG"])
def test_an_image_in_two_files_is_one_image(tmp_path, half):
    touch(tmp_path, "images/a.nii", "images/b.hdr", f"images/b.{half}", "labels/a.hdr", "labels/a.img", "labels/b.nii")
    pairs = read_datalist(tmp_path, pairing="fixed")["training"]
    assert {Path(pair["fixed_image"]).name for pair in pairs} == {"a.nii", "b.hdr"}
    assert {Path(pair["fixed_label"]).name for pair in pairs} == {"a.hdr", "b.nii"}


def test_a_slice_in_two_files_is_one_slice(tmp_path):
    touch(tmp_path, "A_1.png", "A_2.hdr", "A_2.img")
    (pair,) = read_datalist(tmp_path)["training"]
    assert Path(pair["fixed_image"]).name == "A_2.hdr"


@pytest.mark.parametrize("name", ["Patients.csv", "patient.csv", "patients.tsv", "images/patients.csv"])
def test_a_list_of_patients_that_nothing_reads_is_told(tmp_path, name):
    """Every image counted as another patient, and one person could be in training and in test."""
    touch(tmp_path, "images/a.nii", "images/b.nii")
    (tmp_path / name).write_text("image,patient\na,A\nb,A\n")
    with pytest.warns(DataWarning, match=f"{name} is not read: patients are those of patients.csv in .*; rename it"):
        read_datalist(tmp_path, pairing="fixed")


def test_folders_of_labels_that_nothing_reads_are_named(tmp_path):
    touch(
        tmp_path, *(f"{name}/{image}.nii" for name in ("fixed", "moving", "labels", "fixed_labels") for image in "ab")
    )
    with pytest.warns(DataWarning, match=": labels/ is not used, .*: fixed_labels/, .*moving_labels/") as told:
        read_datalist(tmp_path, pairing="moving")
    assert len(told) == 1


@pytest.mark.parametrize("left", ["metrics.csv", "resume.json", "run.lock"])
def test_results_among_the_images_are_left_out(tmp_path, left):
    touch(tmp_path, "images/a.nii", "images/b.nii", "labels/a.nii", "labels/b.nii")
    expected = read_datalist(tmp_path, fractions=TRAIN_ONLY)
    touch(tmp_path, f"images/run/{left}", "images/run/a_to_b/warped/0.dcm", f"labels/a_to_b/{left}")
    with pytest.warns(DataWarning, match="(images/run|labels/a_to_b) holds results, .*, and is left out") as told:
        assert read_datalist(tmp_path, fractions=TRAIN_ONLY) == expected
    assert len(told) == 2


def test_files_of_one_side_are_told_once(tmp_path):
    touch(tmp_path, "a.nii", "b.nii", "a.csv", "l.nii")
    pair = {"fixed_image": "a.nii", "moving_image": "b.nii"}
    entries = [
        pair | {"pair_id": "1", "fixed_landmarks": "a.csv"},
        pair | {"pair_id": "2", "fixed_landmarks": "a.csv", "moving_label": "l.nii", "fixed_mask": "l.nii"},
        pair | {"pair_id": "3", "fixed_label": "l.nii"},
    ]
    with pytest.warns(DataWarning) as told:
        assert len(read_datalist(tmp_path, write(tmp_path, {"test": entries}))["test"]) == 3
    assert [str(each.message).removeprefix(f"{tmp_path}/") for each in told] == [
        "a.csv and 1 more: fixed_landmarks without moving_landmarks, which is not used; give both, or neither",
        "l.nii: fixed_label without moving_label, which is not used; give both, or neither",
    ]


def test_blanks_around_a_patient_make_no_other_patient(tmp_path):
    touch(tmp_path, "a.nii", "b.nii", "c.nii")
    entries = [{"image": f"{name}.nii", "patient": patient} for name, patient in (("a", "A "), ("b", 1), ("c", "1"))]
    with pytest.raises(ValueError, match="patient A is in training and in test"):
        read_datalist(
            tmp_path, write(tmp_path, {"training": entries, "test": [{"image": "c.nii", "patient": "A"}, "b.nii"]})
        )
    pairs = read_datalist(tmp_path, write(tmp_path, {"training": entries}))["training"]
    assert {frozenset(pair["patient"]) for pair in pairs} == {frozenset({"A", "1"})}
    for wrong in (True, 1.0, " ", {}):
        with pytest.raises(ValueError, match=r"patient is .*, expected one patient, by name or whole number"):
            read_datalist(tmp_path, write(tmp_path, {"training": [entries[0] | {"patient": wrong}, entries[1]]}))


def test_folds_of_monai_are_told_once(tmp_path):
    touch(tmp_path, "a.nii", "b.nii")
    entries = [{"image": f"{name}.nii", "fold": fold} for fold, name in enumerate("ab")]
    for content in ({"training": entries}, {"training": 3, "validation": entries}):
        with pytest.raises(
            ValueError, match="has the key fold, as MONAI writes it; move the entries of one fold to the"
        ):
            read_datalist(tmp_path, write(tmp_path, content))


def test_an_ending_alone_makes_no_label(tmp_path):
    touch(tmp_path, "images/a_seg.nii", "images/b_mask.nii", "labels/a_seg.nii", "labels/b_mask.nii")
    (pair, _) = read_datalist(tmp_path, fractions=TRAIN_ONLY)["training"]
    assert pair["fixed_label"] == f"{tmp_path}/labels/b_mask.nii"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,patient\nc0,A\n", "patients.csv has no line for the image c1"),
        ("image,patient\nc0,A\nc1,B\nc0,B\n", "line 4: image c0 has patient B and A"),
        ("# ours\nImage,PATIENT\nc0,A\n", "patients.csv has no line for the image c1"),
        ("image:patient\nc0:A\n", "line 2: expected an image and a patient"),
        ("", "patients.csv names no image; fill it in, or remove it"),
        ("image,patient\n\n", "patients.csv names no image; fill it in, or remove it"),
    ],
)
def test_bad_patients_csv(tmp_path, text, message):
    images(tmp_path, 2)
    (tmp_path / "patients.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_datalist(tmp_path)


# --- real data ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "prostate_mr_trus").is_dir(), reason="needs ../shared/data/prostate_mr_trus")
def test_prostate_is_split_by_patient(tmp_path):
    sections = read_datalist(SHARED / "prostate_mr_trus", pairing="fixed", limits=ALL)
    groups = patients_of(sections)
    assert {name: len(found) for name, found in groups.items()} == {"training": 43, "validation": 9, "test": 9}
    assert len(set().union(*groups.values())) == 61
    assert all({"fixed_label", "moving_label"} <= pair.keys() for pair in select_pairs(sections))
    assert sum(map(len, read_datalist(SHARED / "prostate_mr_trus").values())) == 88
    repeat = read_datalist(SHARED / "prostate_mr_trus", pairing="repeat", limits=ALL)
    assert all(patients_of(repeat)[name] <= groups[name] for name in groups)
    assert len(select_pairs(repeat)) == 19 * 2 + 4 * 6  # 19 patients with two scans, 4 with three
    write_datalist(tmp_path / "list.json", sections, SHARED / "prostate_mr_trus")
    assert read_datalist(SHARED / "prostate_mr_trus", tmp_path / "list.json") == sections


@pytest.mark.skipif(not (SHARED / "hippocampus_mr").is_dir(), reason="needs ../shared/data/hippocampus_mr")
def test_hippocampus_pairs():
    sections = read_datalist(SHARED / "hippocampus_mr")
    assert {name: len(pairs) for name, pairs in sections.items()} == {
        "training": 140 * 139,
        "validation": 16,
        "test": 32,
    }


def test_many_pairs_are_announced_and_few_are_not(capsys):
    announce(range(50))
    assert capsys.readouterr().out == ""
    announce(range(51))
    said = capsys.readouterr().out
    assert said.startswith("51 pairs: ")
    assert said.endswith("--pair_limits::test 20 draws some of those that single images form\n")  # and of no others


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("001", "1"), "'001' and '1' count as different patients; if they are one, spell them alike"),
        (("P1", "p 1", "P01"), "'P1' and 'p 1' and 'P01' count as different patients"),
        (("Jos\u00e9", "Jose\u0301"), "count as different patients"),
        (("A", "a", "B", "b"), r"'A' and 'a' count as different patients \(and 1 more\)"),
        (("10", "100", "1", "A.1", "A1"), None),
    ],
)
def test_patients_that_are_spelt_differently_are_told(tmp_path, names, told, recwarn):
    entries = []
    for number, patient in enumerate(names):
        (tmp_path / f"{number}.nii.gz").touch()
        entries.append({"image": f"{number}.nii.gz", "patient": patient})
    (tmp_path / "list.json").write_text(json.dumps({"training": entries}))
    read_datalist(tmp_path, tmp_path / "list.json")
    found = [str(warning.message) for warning in recwarn if warning.category is DataWarning]
    assert len(found) == (told is not None)
    assert told is None or re.search(told, found[0])
