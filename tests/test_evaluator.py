"""A list of pairs: what fails is reported and in the table, everything else is done."""

import json
import logging
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.losses import BendingEnergyLoss
from monai.transforms import Compose
from torch import nn
from toys import by_pair

from bundle.data import PreparePair
from bundle.evaluation import MetricsTable, PairMetricsd
from bundle.registration import AdaptationInferer, RegistrationLoss
from bundle.results import NativeOutputsd, PairDataset, RegistrationEvaluator, SavePaird
from bundle.results.resume import write_record
from bundle.system import DataWarning


class Shift(nn.Module):
    """``u = w`` along the first axis."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, pair):
        direction = torch.tensor([1.0, 0, 0]).reshape(1, 3, 1, 1, 1)
        return self.weight * direction.expand(len(pair), 3, *pair.shape[2:])


@pytest.fixture
def pairs(tmp_path, fixed_grid, moving_grid, save_nifti):
    """Three pairs; the second one's moving image is cut in half."""
    entries = []
    for name in ("first", "second", "third"):
        entry = {"pair_id": name}
        for side, grid in (("fixed", fixed_grid), ("moving", moving_grid)):
            path = tmp_path / f"{name}_{side}.nii.gz"
            entry[f"{side}_image"] = save_nifti(path, grid.smooth_image(), grid.affine)
            label = tmp_path / f"{name}_{side}_label.nii.gz"
            entry[f"{side}_label"] = save_nifti(label, grid.ball(grid.centre, 5), grid.affine)
        entries.append(entry)
    broken = Path(entries[1]["moving_image"])
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    return entries


@pytest.fixture
def register(tmp_path, content):
    """Run the evaluator of configs/inference.yaml with a toy network over pairs; the table comes back."""

    def run(pairs, loss=None, steps=1, network=None):
        loss = loss or RegistrationLoss(nn.MSELoss(), BendingEnergyLoss(), 10.0)
        table = MetricsTable(tmp_path / "out")
        preprocessing = content("inference.yaml", "preprocessing", pixdim=2.0)
        evaluator = RegistrationEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(PairDataset(pairs, preprocessing), batch_size=1),
            network=network or Shift(),
            prepare_batch=PreparePair(),
            inferer=AdaptationInferer(loss, partial(torch.optim.Adam, lr=0.1), steps=steps),
            postprocessing=Compose(
                [NativeOutputsd(), PairMetricsd([0], None, "cpu", steps), SavePaird(tmp_path / "out")]
            ),
            val_handlers=[table],
        )
        evaluator.logger.setLevel(logging.ERROR)
        evaluator.run()
        return table

    return run


def test_a_truncated_file_is_reported_and_the_other_pairs_are_done(pairs, register, tmp_path, caplog):
    table = register(pairs)
    written = by_pair(tmp_path / "out")
    assert list(written) == ["first", "second", "third"]
    assert [row["status"] for row in written.values()] == ["done", "failed", "done"]
    assert "second_moving.nii.gz" in written["second"]["error"]
    assert "\n" not in written["second"]["error"]
    assert written["second"]["dsc_after"] == ""
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "first",
        "metrics.csv",
        "summary.csv",
        "third",
    ]
    assert any("pair second failed" in record.getMessage() for record in caplog.records)
    with pytest.raises(RuntimeError, match=r"1 of 3 pairs failed \(second: "):
        table.conclude()


def test_all_pairs_done_concludes_quietly(pairs, register, tmp_path, capsys):
    register(pairs[::2]).conclude()
    assert f"2 of 2 pairs registered; table: {tmp_path / 'out' / 'metrics.csv'}" in capsys.readouterr().out


def test_table_holds_what_the_metrics_of_the_pairs_say(pairs, register, tmp_path):
    register([pairs[0], pairs[2]])
    written = by_pair(tmp_path / "out")
    metrics = json.loads((tmp_path / "out/first/metrics.json").read_text())
    assert float(written["first"]["loss_start"]) == metrics["loss"][0]
    assert float(written["first"]["loss_before"]) == metrics["adaptation"]["loss_identity"]
    assert float(written["first"]["loss_after"]) == metrics["adaptation"]["best_loss"]
    assert float(written["first"]["dsc_before"]) == metrics["dsc"]["1"]["before"]
    assert metrics["dsc"]["1"]["before"] > 0.8
    # The pairs hold the same images, so the mean is either's and the spread is 0.
    summary = by_pair(tmp_path / "out", "summary")
    assert list(summary) == ["mean", "sd"]
    assert summary["mean"]["dsc_after"] == written["first"]["dsc_after"] == written["third"]["dsc_after"]
    assert float(summary["sd"]["dsc_after"]) == 0


def test_a_pair_that_fails_in_registration_does_not_stop_the_next(pairs, register, tmp_path):
    class Picky(RegistrationLoss):
        """Not finite for the first pair."""

        calls = 0

        def forward(self, ddf, pair, labels=None):
            self.calls += 1
            terms = super().forward(ddf, pair, labels)
            return {"loss": terms["loss"] * torch.nan} if self.calls == 1 else terms

    table = register([pairs[0], pairs[2]], loss=Picky(nn.MSELoss(), BendingEnergyLoss(), 10.0))
    written = by_pair(tmp_path / "out")
    assert "the loss became nan at adaptation step 0" in written["first"]["error"]
    assert written["third"]["status"] == "done"
    assert len(table.rows) == 2


def test_a_pair_that_cannot_be_saved_is_reported(pairs, register, tmp_path, monkeypatch):
    def full(image, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib, "save", full)
    register(pairs[:1])
    error = by_pair(tmp_path / "out")["first"]["error"]
    assert "cannot write the results of pair first" in error
    assert "No space left on device" in error


def test_a_fault_of_the_program_stops_the_run(pairs, register):
    class Faulty(Shift):
        def forward(self, pair):
            raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        register(pairs[:1], network=Faulty())


def test_a_bad_pair_leaves_the_others_bit_identical(pairs, register, tmp_path):
    register([pairs[2]])
    alone = nib.load(tmp_path / "out/third/displacement.nii.gz").get_fdata()
    register(pairs)
    np.testing.assert_array_equal(nib.load(tmp_path / "out/third/displacement.nii.gz").get_fdata(), alone)
    assert np.abs(alone).max() > 1


def test_a_result_of_other_images_of_the_same_names_is_not_replaced(tmp_path):
    out, names = tmp_path / "out", ("trus", "t2")

    def pair(folder, content="", pair_id="t2_to_trus"):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name in names:
            (tmp_path / folder / f"{name}.nii").write_text(content or folder)
        sides = zip(("fixed_image", "moving_image"), names, strict=True)
        return {"pair_id": pair_id, **{key: str(tmp_path / folder / f"{name}.nii") for key, name in sides}}

    def registered(pair):
        """Name of the result, and whether it was there."""
        dataset = PairDataset([pair], dict, out)
        dataset.settings = "steps 5"
        (found,) = dataset
        folder = out / found["pair_id"]
        folder.mkdir(parents=True, exist_ok=True)
        if "finished" not in found:
            write_record(folder, found)
        return found["pair_id"], "finished" in found

    assert registered(pair("A")) == ("t2_to_trus", False)
    with pytest.warns(DataWarning, match="holds the result of other images .*; this pair is B_t2_to_B_trus$"):
        assert registered(pair("B")) == ("B_t2_to_B_trus", False)
    with pytest.warns(DataWarning):
        assert registered(pair("B")) == ("B_t2_to_B_trus", True)
    assert registered(pair("A")) == ("t2_to_trus", True)
    # The same files with another content, and the same content in other files, are the same pair.
    assert registered(pair("A", content="again")) == ("t2_to_trus", False)
    assert registered(pair("C", content="again")) == ("t2_to_trus", True)
    # Folders may have the same name, too.
    (tmp_path / "elsewhere").mkdir()
    with pytest.warns(DataWarning):
        other = pair("elsewhere/B")
        assert registered(other) == ("B_t2_to_B_trus-2", False)
    # Who names a pair says where it goes.
    assert registered(pair("D", pair_id="mine")) == ("mine", False)
    assert registered(pair("E", pair_id="mine")) == ("mine", False)


@pytest.mark.parametrize("way", ["series", "link"])
def test_results_do_not_go_into_the_folder_of_a_series(tmp_path, way):
    """A warped series there would be a second volume of the folder, which could not be registered again."""
    series = tmp_path / "series"
    series.mkdir()
    (tmp_path / "link").symlink_to(series)
    pair = {"fixed_image": str(tmp_path / "a.nii"), "moving_image": str(series), "pair_id": "p"}
    with pytest.raises(ValueError, match=f"output_dir .*{way}/out/1 lies in .*series, the folder of an image; give"):
        PairDataset([pair], dict, tmp_path / way / "out/1")
    assert not list(series.iterdir())
    PairDataset([pair], dict, tmp_path / "series_out")
