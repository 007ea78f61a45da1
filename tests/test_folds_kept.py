"""Whom a map network has learned from: folds that do not fit are refused, in a training too."""

import json

import pytest
import torch
from monai.data import MetaTensor
from test_maps import biased, pair

from bundle.maps import AnatomyMapsd, check_unseen, write_seen


def folder_of_weights(parent, name, patients, start=None):
    """Weights of a map network beside the record of whom it has learned from."""
    folder = parent / name
    write_seen(folder, [{"patient": (patient,)} for patient in patients], start)
    file = folder / "1.pt"
    torch.save({"bias": torch.zeros(2)}, file)
    return str(file)


def test_a_network_that_knows_a_patient_of_its_fold_is_refused(tmp_path):
    of_fold = [folder_of_weights(tmp_path, "0", ["B", "C"]), folder_of_weights(tmp_path, "1", ["A"])]
    maps = AnatomyMapsd(biased, of_fold, held_out={"A": 0, "B": 1, "C": 1})
    assert isinstance(maps(pair(("A", "B")))["fixed_maps"], MetaTensor)
    wrong = "network .*0.1.pt has learned from 2 patient.s. of the fold that it should not know .B, C.; train"
    with pytest.raises(ValueError, match=wrong):
        AnatomyMapsd(biased, of_fold, held_out={"A": 1, "B": 0, "C": 0})
    with pytest.raises(ValueError, match="network .*1.1.pt has learned from 1 patient.* .A.; "):
        AnatomyMapsd(biased, {"fixed": of_fold[::-1], "moving": of_fold}, held_out={"A": 0, "B": 1, "C": 1})


def test_a_network_knows_whom_the_one_it_goes_on_from_knew(tmp_path):
    first = folder_of_weights(tmp_path, "first", ["A"])
    second = folder_of_weights(tmp_path, "second", ["B"], start=first)
    check_unseen(second, ["C"])
    with pytest.raises(ValueError, match="from 1 patient.* .A.; "):
        check_unseen(second, ["A", "C"])


def test_many_patients_are_named_by_three_and_weights_without_a_record_are_taken(tmp_path):
    all_patients = folder_of_weights(tmp_path, "all", "ABCDE")
    with pytest.raises(ValueError, match="from 5 patient.* .A, B, C, ....; "):
        check_unseen(all_patients, "ABCDE")
    check_unseen(tmp_path / "copied.pt", "ABCDE")


def test_the_record_holds_no_names(tmp_path):
    folder_of_weights(tmp_path, "new", ["Jane Doe"])
    record = (tmp_path / "new/patients_seen.json").read_text("utf-8")
    assert "Jane" not in record
    assert len(json.loads(record)["patients"]) == 1
