"""Mixtures of pairs between patients, within patients and of an image with itself: what they are formed of."""

from collections import Counter

import pytest
from test_datalist import ALL, TRAIN_ONLY, images, lines_of, paired_folders, patients_of, touch, write

from bundle.data import pair_kind, read_datalist, write_datalist

MIXTURE = {"between": 0.65, "repeat": 0.25, "self": 0.1}


@pytest.fixture
def paired(tmp_path):
    return paired_folders(tmp_path)


def kinds_of(pairs):
    return dict(Counter(map(pair_kind, pairs)))


@pytest.mark.parametrize(
    ("sides", "patient", "kind"),
    [
        (("a", "a"), ("P",), "self"),
        (("a", "b"), ("P",), "repeat"),
        (("a", "b"), ["P"], "repeat"),
        (("a", "b"), ("P", "Q"), "between"),
    ],
)
def test_a_pair_is_what_its_images_are_of(sides, patient, kind):
    assert pair_kind({"fixed_image": sides[0], "moving_image": sides[1], "patient": patient}) == kind


def test_folders_form_pairs_of_every_kind(paired):
    options = {"pairing": "fixed", "fractions": TRAIN_ONLY, "limits": ALL}
    pairs = read_datalist(paired, **options, mixture=MIXTURE)["training"]
    # Eight images, of patients with 2, 1, 1, 2 and 2.
    assert kinds_of(pairs) == {"between": 64 - 14, "repeat": 6, "self": 8}
    assert pairs[:50] == read_datalist(paired, **options)["training"]
    twice = next(pair for pair in pairs if pair["pair_id"] == "a1_to_a1")
    assert twice == {
        "fixed_image": f"{paired}/fixed_images/a1.nii.gz",
        "moving_image": f"{paired}/fixed_images/a1.nii.gz",
        "fixed_label": f"{paired}/fixed_labels/a1.nii.gz",
        "moving_label": f"{paired}/fixed_labels/a1.nii.gz",
        "patient": ("a",),
        "pair_id": "a1_to_a1",
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("pairing", ["fixed", "repeat"])
def test_a_mixture_stays_in_the_training_of_its_patients(tmp_path, pairing, seed):
    images(tmp_path, 24)
    rows = [f"c{number},p{number // 2}" for number in range(24)]
    (tmp_path / "patients.csv").write_text("\n".join(["image,patient", *rows]))
    options = {"pairing": pairing, "fractions": (0.5, 0.25, 0.25), "limits": ALL, "seed": seed}
    plain, mixed = read_datalist(tmp_path, **options), read_datalist(tmp_path, **options, mixture=MIXTURE)
    assert patients_of(mixed) == patients_of(plain)
    assert {section: mixed[section] for section in ("validation", "test")} == {
        section: plain[section] for section in ("validation", "test")
    }
    assert kinds_of(mixed["training"]) == {"between": 12 * 10, "repeat": 12, "self": 12}


def test_limits_are_those_of_each_kind(paired):
    options = {"pairing": "fixed", "fractions": TRAIN_ONLY, "limits": {"training": 3}}
    pairs = read_datalist(paired, **options, mixture=MIXTURE, seed=1)["training"]
    assert kinds_of(pairs) == {"between": 3, "repeat": 3, "self": 3}
    assert pairs == read_datalist(paired, **options, mixture=MIXTURE, seed=1)["training"]
    assert pairs[:3] == read_datalist(paired, **options, seed=1)["training"]
    assert read_datalist(paired, pairing="fixed", limits={"training": 0}, mixture=MIXTURE)["training"] == []


def test_a_written_mixture_reads_back_the_same(paired):
    options = {"limits": {"training": 3}, "mixture": MIXTURE}
    sections = read_datalist(paired, pairing="fixed", fractions=TRAIN_ONLY, **options)
    write_datalist(paired / "new.json", sections, paired)
    assert read_datalist(paired, "new.json", **options) == sections


def test_paired_folders_train_as_without_a_mixture(paired):
    assert read_datalist(paired, mixture={"paired": 1}) == read_datalist(paired)


def test_paired_folders_may_add_their_images_with_themselves(paired):
    pairs = read_datalist(paired, fractions=TRAIN_ONLY, mixture={"paired": 0.9, "self": 0.1})["training"]
    assert kinds_of(pairs) == {"repeat": 8, "self": 16}
    assert len({pair["pair_id"] for pair in pairs}) == 24


def test_listed_pairs_without_a_share_are_not_trained_on(tmp_path):
    touch(tmp_path, "a.nii", "b.nii", "c.nii", "d.nii")
    listed = {"fixed_image": "a.nii", "moving_image": "b.nii", "patient": "P"}
    entries = [listed, {"image": "c.nii", "patient": "Q"}, {"image": "d.nii", "patient": "R"}]
    pairs = read_datalist(tmp_path, write(tmp_path, {"training": entries}), mixture={"between": 0.5, "self": 0.5})
    ids = [pair["pair_id"] for pair in pairs["training"]]
    assert ids == ["c_to_d", "d_to_c", "a_to_a", "b_to_b", "c_to_c", "d_to_d"]


def test_mixed_pairs_are_of_one_task(tmp_path):
    for task in ("brain", "eye"):
        touch(tmp_path, *(f"{task}/images/{name}.nii" for name in ("p0", "p1", "q0")))
    rows = ["image,patient", "p0,p", "p1,p", "q0,q"]
    (tmp_path / "patients.csv").write_text("\n".join(rows))
    pairs = read_datalist(tmp_path, fractions=TRAIN_ONLY, mixture=MIXTURE)["training"]
    counted = Counter((pair["task"], pair_kind(pair)) for pair in pairs)
    assert set(counted.values()) == {4, 2, 3}
    assert counted["eye", "repeat"] == 2
    assert counted["brain", "self"] == 3


def test_a_kind_that_is_impossible_is_refused(tmp_path):
    images(tmp_path, 4)
    with pytest.raises(ValueError) as error:
        read_datalist(tmp_path, fractions=TRAIN_ONLY, mixture=MIXTURE)
    assert lines_of(error) == [
        "mixture gives repeat a share of 0.25, but there is no such pair to train on: it needs two single images of "
        "one patient, which patients.csv or the entries' patient name; add them, or leave repeat out of the mixture"
    ]


@pytest.mark.parametrize("pairing", ["fixed", "repeat"])
def test_an_image_listed_twice_is_no_repeat_scan(tmp_path, pairing):
    images(tmp_path, 2, "")
    entries = [{"image": f"c{number}.nii.gz", "patient": "PQ"[number]} for number in (0, 0, 1)]
    with pytest.raises(ValueError, match="image listed 2 times: .*c0.nii.gz; list each image once"):
        read_datalist(tmp_path, write(tmp_path, {"training": entries}), pairing=pairing, mixture=MIXTURE)


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ({"between": 0.5}, "expected shares of between, repeat, self, paired that sum to 1"),
        ({"between": 1.5, "self": -0.5}, "expected shares of"),
        ({"between": "1"}, "expected shares of"),
        ({"others": 1}, "expected shares of"),
        ({}, "expected shares of"),
        ({"paired": 0.5, "repeat": 0.5}, "mix it with 'self' only"),
    ],
)
def test_bad_mixtures(paired, mixture, message):
    with pytest.raises(ValueError, match=message):
        read_datalist(paired, mixture=mixture)
