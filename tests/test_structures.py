"""Named structures: read from datalists and folders, written back, and matched by name only between patients."""

import json
import warnings

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from test_check import save, volume
from test_datalist import TRAIN_ONLY, lines_of, touch, write

from bundle.data import (
    Correspondence,
    LabelChannelsd,
    check_data,
    check_headers,
    check_shared_values,
    corresponding,
    read_datalist,
    write_datalist,
)
from bundle.data.structures import clean_structures, structure_conflicts
from bundle.evaluation.scored import in_fixed_numbers, scored_channels

FULL, LESS = {"gland": 0, "apex": 1, "base": 2}, {"gland": 0, "apex": 1}


def pair_of(fixed=None, moving=None, patient=("P", "Q")):
    names = {"fixed_structures": fixed, "moving_structures": moving}
    return {"pair_id": "p", "patient": patient} | {key: value for key, value in names.items() if value is not None}


# --- which structures correspond ----------------------------------------------------------------------------------


def test_between_patients_shared_names_correspond_in_the_order_of_the_fixed_label():
    pair = pair_of({"base": 5, "gland": 0, "tumour": 3}, {"gland": 1, "base": 2, "apex": 0})
    assert corresponding(pair, range(9)) == [("gland", 0, 1), ("base", 5, 2)]


def test_between_patients_that_share_no_name_nothing_corresponds():
    assert corresponding(pair_of({"gland": 0}, {"apex": 0}), range(4)) == []
    assert corresponding(pair_of({}, FULL), range(4)) == []


def test_within_a_patient_all_correspond_by_number():
    expected = [("gland", 0, 0), ("apex", 1, 1), ("base", 2, 2), (3, 3, 3)]
    assert corresponding(pair_of(LESS, FULL, ("P",)), range(4)) == expected
    assert corresponding(pair_of(None, FULL, ["P"]), range(4)) == expected


@pytest.mark.parametrize("pair", [pair_of(), pair_of(FULL), pair_of(None, FULL), {"pair_id": "p"}])
def test_without_names_on_both_sides_all_correspond_by_number(pair):
    assert corresponding(pair, [1, 7]) == [(1, 1, 1), (7, 7, 7)]


def test_a_batch_taken_apart_again_corresponds_as_before():
    pair = pair_of(FULL, {"gland": 4})
    (again,) = decollate_batch(list_data_collate([pair]))
    assert corresponding(again, range(3)) == corresponding(pair, range(3)) == [Correspondence("gland", 0, 4)]


# --- channels of the labels ---------------------------------------------------------------------------------------


def labels(pair, fixed, moving):
    """Labels of which channel ``k`` has ``k + 1`` voxels, and one more in the moving label."""

    def label(channels, more):
        made = torch.zeros(channels, 2, 3, 4)
        for k in range(channels):
            made[k].view(-1)[: k + 1 + more] = 1
        return MetaTensor(made, affine=np.eye(4))

    return pair | {"fixed_label": label(fixed, 0), "moving_label": label(moving, 1)}


def sums(result):
    return [result[f"{side}_label"].sum((1, 2, 3)).tolist() for side in ("fixed", "moving")]


def test_shared_names_become_the_channels():
    result = LabelChannelsd()(labels(pair_of(FULL, {"apex": 3, "gland": 1}), 5, 4))
    assert result["structures"] == ["gland", "apex"]
    assert sums(result) == [[1, 2], [3, 5]]


def test_chosen_names_come_in_their_order_and_unshared_ones_are_empty_in_both():
    result = LabelChannelsd(["base", "apex", "gland"])(labels(pair_of(LESS, FULL), 5, 4))
    assert result["structures"] == ["base", "apex", "gland"]
    assert sums(result) == [[0, 2, 1], [0, 3, 2]]


def test_chosen_numbers_of_named_structures_are_not_matched_unless_they_share_the_name():
    result = LabelChannelsd([2, 0, 1])(labels(pair_of(LESS, FULL), 5, 4))
    assert result["structures"] == [2, "gland", "apex"]
    assert sums(result) == [[0, 1, 2], [0, 2, 3]]


def test_within_a_patient_landmarks_without_a_name_stay():
    result = LabelChannelsd()(labels(pair_of(LESS, LESS, ("P",)), 5, 4))
    assert result["structures"] == ["gland", "apex", 2, 3]
    assert sums(result) == [[1, 2, 3, 4], [2, 3, 4, 5]]
    chosen = LabelChannelsd(["apex", "base"])(labels(pair_of(None, FULL, ("P",)), 5, 4))
    assert sums(chosen) == [[2, 3], [3, 4]]


def test_names_of_values_of_integer_maps():
    pair = pair_of({"anterior": 1, "posterior": 2}, {"anterior": 8, "posterior": 9})
    fixed, moving = torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4)
    fixed[0, 0, 0, :3], fixed[0, 1, 0, :2], moving[0, 0, 0, :1], moving[0, 1, 1, :4] = 1, 2, 8, 9
    pair |= {"fixed_label": MetaTensor(fixed), "moving_label": MetaTensor(moving)}
    assert sums(LabelChannelsd(["posterior", "anterior"])(pair)) == [[2, 3], [4, 1]]


def test_labels_that_share_nothing_are_left_out():
    result = LabelChannelsd()(labels(pair_of({"gland": 0}, {"apex": 0}), 3, 3))
    assert result["structures"] == []
    assert not {"fixed_label", "moving_label"} & set(result)


def test_a_named_channel_beyond_the_label_is_empty():
    result = LabelChannelsd()(labels(pair_of(FULL, FULL), 2, 4))
    assert sums(result) == [[1, 2, 0], [2, 3, 4]]


@pytest.mark.parametrize(
    ("pair", "sides"),
    [
        (pair_of(FULL), "moving_label"),
        (pair_of(), "fixed_label and moving_label"),
        (pair_of(patient=("P",)), "fixed_label and moving_label"),
    ],
)
def test_chosen_names_need_labels_with_names(pair, sides):
    with pytest.raises(
        ValueError, match=rf"pair p: the structures are \['gland'\], but nothing names those of {sides};"
    ):
        LabelChannelsd(["gland"])(labels(pair, 3, 3))


@pytest.mark.parametrize("structures", ["gland", ["gland", 0], ["gland", "gland"], [""]])
def test_names_and_numbers_do_not_mix(structures):
    with pytest.raises(ValueError, match="structures is .*; expected different channel numbers .* or names"):
        LabelChannelsd(structures)


# --- datalists ----------------------------------------------------------------------------------------------------


def single(name, patient, **more):
    return {"image": f"{name}.nii", "label": f"{name}_l.nii", "patient": patient} | more


@pytest.fixture
def listed(tmp_path):
    touch(tmp_path, *(f"{name}{kind}.nii" for name in "abc" for kind in ("", "_l")))
    return tmp_path


def test_pairs_of_single_images_carry_the_structures_of_both_sides(listed):
    entries = [single("a", "1", structures=LESS), single("b", "2", structures=FULL), single("c", "2")]
    sections = read_datalist(listed, write(listed, {"training": entries}))
    pairs = {pair["pair_id"]: pair for pair in sections["training"]}
    assert pairs["a_to_b"]["fixed_structures"] == FULL
    assert pairs["a_to_b"]["moving_structures"] == LESS
    assert "fixed_structures" not in pairs["a_to_c"]
    write_datalist(listed / "new.json", sections, listed)
    assert read_datalist(listed, "new.json") == sections


def test_structures_of_a_pair_are_its_own_or_of_the_folder_s_file(listed):
    (listed / "structures.json").write_text(json.dumps({"default": FULL, "b.nii": LESS}))
    sides = {f"{side}_{kind}": f"{name}{end}.nii" for side, name in (("fixed", "b"), ("moving", "a"))
             for kind, end in (("image", ""), ("label", "_l"))}  # fmt: skip
    entries = [sides, sides | {"pair_id": "own", "fixed_structures": {"tumour": 7}}]
    first, own = read_datalist(listed, write(listed, {"test": entries}))["test"]
    assert (first["fixed_structures"], first["moving_structures"]) == (LESS, FULL)
    assert own["fixed_structures"] == {"tumour": 7}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([0, 1], "structures is [0, 1], expected the channel (from 0) or label value of each name"),
        ({"gland": "0"}, "structures has 'gland': '0', expected a name and its channel"),
        ({"gland": True}, "structures has 'gland': True, expected a name and its channel"),
        ({"gland": -1}, "structures has 'gland': -1, expected a name and its channel"),
        ({"": 1}, "structures has '': 1, expected a name and its channel"),
        ({"gland": 1, "prostate": 1}, "structures calls 1 both gland and prostate; keep one name"),
    ],
)
def test_bad_structures(value, message):
    problems = []
    clean_structures(value, "structures", problems)
    assert len(problems) == 1
    assert problems[0].startswith(message)


def test_a_training_names_all_labels_without_a_common_value(tmp_path):
    values = {"one": 1, "other": 255, "both": 255}
    for name, value in values.items():
        voxels = np.zeros((6, 5, 4), np.uint8)
        voxels[2:4, 2:4] = value
        voxels[0] = name == "both"
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / f"{name}.nii")
    nib.save(nib.Nifti1Image(np.ones((6, 5, 4, 2), np.uint8), np.eye(4)), tmp_path / "channels.nii")

    def paths(fixed, moving, **more):
        names = {"fixed_label": str(tmp_path / f"{fixed}.nii"), "moving_label": str(tmp_path / f"{moving}.nii")}
        return {"pair_id": f"{moving}_to_{fixed}", **names, **more}

    named = {"fixed_structures": {"gland": 1}, "moving_structures": {"gland": 255}}
    sound = [paths("one", "both"), paths("other", "both"), paths("channels", "one"), paths("one", "other", **named)]
    check_shared_values([*sound, {"pair_id": "without", "fixed_label": "nowhere.nii"}])
    with pytest.raises(ValueError, match="^pair other_to_one: .* the values 1 and the moving label 255, none of which"):
        check_shared_values([*sound, paths("one", "other")])
    with pytest.raises(ValueError, match="^2 problems .*: pair other_to_one and 1 more: .*; pair one_to_other: "):
        check_shared_values([paths("one", "other"), paths("one", "other"), paths("other", "one")])


@pytest.mark.parametrize(
    ("structures", "overlapping", "told"), [([3, 7], [0], "of 7 of"), (None, [0], "of 7, 200 of"), ([3, 7], None, "")]
)
def test_values_whose_centres_alone_are_compared_are_told(tmp_path, structures, overlapping, told):
    voxels = np.zeros((6, 5, 4), np.uint8)
    voxels[1], voxels[2], voxels[3] = 3, 7, 200
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "map.nii")
    pair = {"pair_id": "a", "fixed_label": str(tmp_path / "map.nii"), "moving_label": str(tmp_path / "map.nii")}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_shared_values([pair], structures, overlapping)
    assert [str(one.message).split(" the integer")[0] for one in caught] == [told] * bool(told)


def test_structures_need_a_label(listed):
    entry = {"image": "a.nii", "patient": "1", "structures": FULL}
    with pytest.raises(ValueError, match=r"test\[0\]: structures without a label, whose channels they name"):
        read_datalist(listed, write(listed, {"test": [entry, single("b", "2")]}))


def test_names_with_other_numbers_within_a_patient_are_refused_once():
    pairs = [pair_of({"gland": 0}, {"gland": 1}, ("P",)), pair_of({"gland": 1}, {"gland": 0}, ("P",))]
    assert structure_conflicts({"test": pairs + [pair_of({"gland": 0}, {"gland": 1})]}) == [
        "gland is number 1 in one label of patient P and 0 in another; the channels (or values) of one patient "
        "correspond by number, so number them alike"
    ]


# --- folders ------------------------------------------------------------------------------------------------------


def folders(root, names="abc"):
    touch(root, *(f"{folder}/{name}.nii.gz" for name in names for folder in ("images", "labels")))
    return root


def test_structures_of_a_folder(tmp_path):
    (folders(tmp_path) / "structures.json").write_text(json.dumps({"default": FULL, "b": LESS}))
    pairs = {pair["pair_id"]: pair for pair in read_datalist(tmp_path, fractions=TRAIN_ONLY)["training"]}
    assert len(pairs) == 6
    assert (pairs["b_to_c"]["fixed_structures"], pairs["b_to_c"]["moving_structures"]) == (FULL, LESS)


def test_a_task_has_a_file_of_its_own(tmp_path):
    for task in ("brain", "eye"):
        folders(tmp_path / task, "ab")
    (tmp_path / "structures.json").write_text(json.dumps({"default": {"all": 1}}))
    (tmp_path / "eye/structures.json").write_text(json.dumps({"a": {"fovea": 2}}))
    pairs = read_datalist(tmp_path, fractions=TRAIN_ONLY)["training"]
    found = {(pair["task"], pair["pair_id"][-1]): pair.get("fixed_structures") for pair in pairs}
    assert found == {
        ("brain", "a"): {"all": 1},
        ("brain", "b"): {"all": 1},
        ("eye", "a"): {"fovea": 2},
        ("eye", "b"): None,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "holds a list, expected structures by image"),
        ('{"a": {"gland": 0}, "a": {"gland": 1}}', "names 'a' twice; keep one of them"),
        ('{"a": {"gland": 0, "gland": 1}}', "names 'gland' twice; keep one of them"),
        ('{"a": {}, "a.nii.gz": {}}', "names the image a twice; keep one of them"),
        ('{"a": {"gland": 0.5}}', "a has 'gland': 0.5, expected a name and its channel"),
        ('{"d": {"gland": 0}}', "names the image d, which is not there; correct the name"),
    ],
)
def test_bad_file_of_structures(tmp_path, text, message):
    (folders(tmp_path) / "structures.json").write_text(text)
    with pytest.raises(ValueError) as error:
        read_datalist(tmp_path, fractions=TRAIN_ONLY)
    (line,) = lines_of(error)
    assert str(tmp_path / "structures.json") in line
    assert message in line


def test_the_check_knows_the_channels(tmp_path):
    for number, name in enumerate("abc"):
        save(tmp_path / f"images/{name}.nii.gz", volume(number))
    channels = np.ones((*volume().shape, 2))
    save(tmp_path / "labels/a.nii.gz", channels)
    save(tmp_path / "labels/b.nii.gz", channels)
    save(tmp_path / "labels/c.nii.gz", np.ones(volume().shape))
    (tmp_path / "structures.json").write_text(json.dumps({"default": FULL, "b": LESS}))
    assert check_data(tmp_path, fractions=TRAIN_ONLY).problems == [
        "labels/a.nii.gz: base is channel 2, but the label has the channels 0 to 1; correct the number, or leave the "
        "name out",
        "labels/c.nii.gz: gland is 0, the background of an integer map; give the value of its voxels",
    ]


def test_an_image_in_place_of_a_label_is_one_problem(tmp_path):
    """Its intensities are no values of a label."""
    for name, voxels in {"a": np.arange(60) / 7, "b": np.arange(60) / 9, "label": np.arange(60) // 30}.items():
        nib.save(nib.Nifti1Image(voxels.reshape(3, 4, 5).astype(np.float32), np.eye(4)), tmp_path / f"{name}.nii")
    names = {"fixed_image": "a", "moving_image": "b", "fixed_label": "b", "moving_label": "label"}
    entry = {key: f"{name}.nii" for key, name in names.items()}
    (problem,) = check_data(tmp_path, write(tmp_path, {"test": [entry]})).problems
    assert problem.startswith("b.nii: the label has fractions")


@pytest.mark.parametrize("other", [255, 614454277])
def test_the_check_names_labels_without_a_value_in_both(tmp_path, other):
    """ImageJ and others save a mask as 0 and 255, which is another structure than 1: nothing could be compared."""
    values = {"a": 1, "b": other, "c": other, "d": 1}
    for number, (name, value) in enumerate(values.items()):
        label = np.zeros(volume().shape, np.uint32)
        label[1:3] = value
        save(tmp_path / f"images/{name}.nii.gz", volume(number))
        save(tmp_path / f"labels/{name}.nii.gz", label)
    said = [
        f"pair b_to_a and 3 more: the fixed label has the values 1 and the moving label {other}, none of which is in "
        "both; give a structure one value in both",
        f"pair a_to_b and 3 more: the fixed label has the values {other} and the moving label 1, none of which is in "
        "both; give a structure one value in both",
    ]
    assert sorted(check_data(tmp_path, fractions=TRAIN_ONLY).problems) == sorted(said)
    # By name these are one structure.
    named = {"default": {"gland": 1}, "b": {"gland": other}, "c": {"gland": other}}
    (tmp_path / "structures.json").write_text(json.dumps(named))
    assert check_data(tmp_path, fractions=TRAIN_ONLY).problems == []


def test_the_check_names_pairs_of_a_map_and_a_label_with_channels(tmp_path):
    """Registration refused them, and the check before it said nothing; a training ended when it drew one."""
    for number, name in enumerate("abc"):
        save(tmp_path / f"images/{name}.nii.gz", volume(number))
        save(tmp_path / f"labels/{name}.nii.gz", np.ones((*volume().shape, *([2] if name == "c" else []))))
    numbers = [f"fixed_label has {fixed} channel(s) and moving_label {moving}" for fixed, moving in ((1, 2), (2, 1))]
    said = [
        f"pair {first} and 1 more: {found}; give both as integer maps or both with one structure per channel"
        for first, found in zip(("c_to_a", "a_to_c"), numbers, strict=True)
    ]
    assert sorted(check_data(tmp_path, fractions=TRAIN_ONLY).problems) == sorted(said)
    with pytest.raises(ValueError, match="^2 problems in the files of the pairs: ") as raised:
        check_headers(read_datalist(tmp_path, fractions=TRAIN_ONLY)["training"])
    assert all(line in str(raised.value) for line in said)


def test_scored_labels_of_the_moving_image_take_the_numbers_of_the_fixed_one():
    fixed = MetaTensor(torch.zeros(3, 2, 2, 2), affine=torch.eye(4))
    moving = MetaTensor(torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 2, 2, 2).clone(), affine=torch.eye(4))
    pair = {
        "native_fixed_label": fixed,
        "native_moving_label": moving,
        "patient": ("A", "B"),
        "fixed_structures": {"gland": 0, "apex": 2},
        "moving_structures": {"gland": 1, "apex": 3, "base": 0},
    }
    moving.affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # MONAI's reached the user
        numbered = in_fixed_numbers(pair)["native_moving_label"]
    assert torch.equal(numbered.affine, moving.affine)
    assert numbered[:, 0, 0, 0].tolist() == [1, 0, 3]
    assert scored_channels(pair, 3, [0], [1, 2]) == ([0], [2])
    # Within a patient all correspond by number.
    assert in_fixed_numbers({**pair, "patient": ("A",)})["native_moving_label"] is moving
    assert scored_channels({**pair, "patient": ("A",)}, 3, [0], [1]) == ([0], [1, 2])


def test_scored_values_of_an_integer_map_take_the_numbers_of_the_fixed_one():
    fixed = MetaTensor(torch.full((1, 2, 2, 2), 5.0), affine=torch.eye(4))
    moving = MetaTensor(torch.tensor([0.0, 7, 9, 7]).reshape(1, 2, 2, 1), affine=torch.eye(4))
    names = {"fixed_structures": {"head": 5}, "moving_structures": {"head": 7, "tail": 9}}
    pair = {"native_fixed_label": fixed, "warped_label": moving, "patient": ("A", "B"), **names}
    assert in_fixed_numbers(pair)["warped_label"].flatten().tolist() == [0, 5, 0, 5]
