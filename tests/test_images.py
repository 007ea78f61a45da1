"""Single images for other trainings: each once, split as the pairs are, and divided into folds."""

import json
import warnings
from collections import Counter

import pytest
from test_datalist import ALL, TRAIN_ONLY, paired_folders, patients_of, touch, write

from bundle.data import read_datalist, read_folds, read_images, write_datalist
from bundle.data.splits import split_folds
from bundle.system import DataWarning


@pytest.fixture
def paired(tmp_path):
    """Images of two sides: a0 a1 | b0 | c0 | d0 d1 | e0 e1."""
    return paired_folders(tmp_path)


def names(images):
    return ["/".join(image["image"].split("/")[-2:]).removesuffix(".nii.gz") for image in images]


def cohort(root, patients=20):
    """Two images of each patient in ``images/``, with labels."""
    scans = [f"p{number:02}_{scan}" for number in range(patients) for scan in (0, 1)]
    touch(root, *(f"{folder}/{scan}.nii.gz" for scan in scans for folder in ("images", "labels")))
    (root / "patients.csv").write_text("\n".join(["image,patient", *(f"{scan},{scan[:3]}" for scan in scans)]))
    return root


def test_images_of_one_side_come_with_what_belongs_to_them(paired):
    (paired / "structures.json").write_text(json.dumps({"a1": {"gland": 0}}))
    images = read_images(paired, side="moving", fractions=TRAIN_ONLY)["training"]
    assert names(images) == [f"moving_images/{name}" for name in ("a0", "a1", "b0", "c0", "d0", "d1", "e0", "e1")]
    assert images[1] == {
        "image": f"{paired}/moving_images/a1.nii.gz",
        "label": f"{paired}/moving_labels/a1.nii.gz",
        "patient": ("a",),
        "structures": {"gland": 0},
    }


def test_images_of_both_sides_or_of_one_by_the_split_of_paired(paired):
    assert len(read_images(paired, fractions=TRAIN_ONLY)["training"]) == 16
    fixed = read_images(paired, side="fixed", pairing="paired", fractions=TRAIN_ONLY)["training"]
    assert fixed == read_images(paired, side="fixed", fractions=TRAIN_ONLY)["training"]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("pairing", ["paired", "fixed", "moving", "repeat"])
@pytest.mark.parametrize("fractions", [(0.6, 0.2, 0.2), (0.4, 0.2, 0.4)])
def test_sections_are_those_of_the_pairs(paired, seed, pairing, fractions):
    options = {"pairing": pairing, "fractions": fractions, "seed": seed}
    of_pairs = patients_of(read_datalist(paired, **options, limits=ALL))
    of_images = patients_of(read_images(paired, **options))
    assert set.union(*of_images.values()) == set("abcde")
    for section, patients in of_pairs.items():
        # Patients without a second scan are in no repeat pair.
        assert patients <= of_images[section]
        assert pairing == "repeat" or patients == of_images[section]


def test_folds_divide_the_patients_of_training(tmp_path):
    cohort(tmp_path)
    options = {"fractions": (0.5, 0.25, 0.25), "seed": 3}
    whole = read_images(tmp_path, **options)
    folds = read_folds(tmp_path, **options, folds=4)
    assert set(folds) == patients_of(whole)["training"]
    assert sorted(Counter(folds.values()).items()) == [(0, 3), (1, 3), (2, 2), (3, 2)]
    for fold in range(4):
        sections = read_images(tmp_path, **options, folds=4, fold=fold)
        held_out = {patient for patient, number in folds.items() if number == fold}
        assert patients_of(sections)["validation"] == held_out
        assert patients_of(sections)["training"] == set(folds) - held_out
        assert len(sections["training"]) + len(sections["validation"]) == 20
        assert sections["test"] == whole["test"]
    assert folds != read_folds(tmp_path, **options | {"seed": 4}, folds=4)


@pytest.mark.parametrize("side", ["fixed", "moving"])
def test_the_networks_of_both_sides_have_the_same_folds(tmp_path, side):
    """Training asks for the maps of a patient from the network that never saw it, whichever image the maps are of."""
    cohort(tmp_path, 12)
    image = {kind: f"{kind}s/p{{:02}}_{{}}.nii.gz" for kind in ("image", "label")}
    entries = [
        {f"{name}_{kind}": image[kind].format(number, 0) for name, number in sides.items() for kind in image}
        | {"patient": [f"p{number:02}" for number in sides.values()]}
        for sides in ({"moving": number, "fixed": 11 - number // 2} for number in range(11))
    ]
    datalist = write(tmp_path, {"training": entries})
    folds = read_folds(tmp_path, datalist, folds=3)
    assert set(folds) == {f"p{number:02}" for number in range(12)}
    for fold in range(3):
        sections = read_images(tmp_path, datalist, side=side, folds=3, fold=fold)
        assert {folds[patient] for patient in patients_of(sections)["training"]} == {0, 1, 2} - {fold}


def test_folds_are_the_same_whatever_the_order():
    assert split_folds("cab", 3, 1) == split_folds("abcab", 3, 1)
    assert sorted(split_folds("abc", 3, 1).values()) == [0, 1, 2]


def test_a_patient_without_labels_changes_no_fold(tmp_path):
    options = {"fractions": TRAIN_ONLY, "folds": 3}
    (tmp_path / "some").mkdir()
    before = read_folds(cohort(tmp_path, 7), **options)
    entries = [{"image": f"images/p{number:02}_0.nii.gz", "patient": f"p{number:02}"} for number in range(7)]
    entries = [entry | {"label": entry["image"].replace("images", "labels")} for entry in entries[1:]] + entries[:1]
    assert read_folds(tmp_path, write(tmp_path, {"training": entries}), folds=3) == before


def test_images_of_listed_pairs_are_taken_once(tmp_path):
    cohort(tmp_path, 4)
    sections = read_datalist(tmp_path, fractions=TRAIN_ONLY)
    write_datalist(tmp_path / "pairs.json", sections, tmp_path)
    from_pairs = read_images(tmp_path, "pairs.json")["training"]
    from_folder = read_images(tmp_path, fractions=TRAIN_ONLY)["training"]
    assert sorted(from_pairs, key=lambda image: image["image"]) == from_folder
    assert len(from_pairs) == 8
    write_datalist(tmp_path / "images.json", {"training": from_folder}, tmp_path)
    assert read_images(tmp_path, "images.json")["training"] == from_folder
    assert "images/p00_0.nii.gz" in (tmp_path / "images.json").read_text()


def test_an_image_of_two_patients_is_refused(tmp_path):
    touch(tmp_path, "a.nii", "b.nii", "l.nii")
    pair = {"fixed_image": "a.nii", "moving_image": "b.nii", "fixed_label": "l.nii"}
    entries = [pair | {"patient": ["B", "A"], "pair_id": "1"}, pair | {"patient": ["A", "B"], "pair_id": "2"}]
    with pytest.raises(ValueError, match=r"a.nii has the patient \('A',\) in one entry and \('B',\) in another; give"):
        read_images(tmp_path, write(tmp_path, {"training": entries}))


def test_images_without_a_label_are_counted(tmp_path):
    touch(tmp_path, "a.nii", "b.nii", "l.nii")
    path = write(tmp_path, {"training": ["a.nii", {"image": "b.nii", "label": "l.nii"}]})
    with pytest.warns(DataWarning, match="1 of the 2 images of .* have no label and are left out"):
        assert names(read_images(tmp_path, path)["training"])[0].endswith("b.nii")
    with pytest.raises(ValueError, match="none of the 1 images of .* has a label"):
        read_images(tmp_path, write(tmp_path, {"training": ["a.nii"]}))


def test_no_warning_without_reason(paired):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_images(paired)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"side": "left"}, "side is 'left', expected fixed or moving, or None for both"),
        ({"side": "moving", "pairing": "fixed"}, "pairing is fixed, which forms pairs of fixed images only"),
        ({"fold": 1}, "fold is 1 of None folds"),
        ({"folds": 2}, "fold is None of 2 folds"),
        ({"folds": 2, "fold": 2}, "fold is 2 of 2 folds, expected one from 0 to folds - 1"),
        ({"folds": 6, "fold": 0}, "folds is 6, expected 2 or more, and at most the 5 patients of training"),
        ({"folds": 1, "fold": 0}, "folds is 1, expected 2 or more"),
    ],
)
def test_bad_options(paired, options, message):
    with pytest.raises(ValueError, match=message):
        read_images(paired, fractions=TRAIN_ONLY, **options)
