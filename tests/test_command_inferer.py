"""Another program in place of the network: known transforms, what it is given, and what goes wrong in one line."""

import json
import os
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn
from workflow_fixtures import INFERENCE, ROOT

from bundle.apps.peers import main
from bundle.registration import BendingEnergyLoss, CommandInferer, ConsistencyInferer, MSELoss, RegistrationLoss
from bundle.system import fingerprint

pytest_plugins = ["workflow_fixtures"]

PIXDIM = 2.0
SHAPE = (6, 7, 8)

WRITES_A_SHIFT = """
import sys, nibabel as nib, numpy as np
fixed, moving, output = sys.argv[1:4]
image = nib.load(fixed)
shift = float(nib.load(moving).get_fdata()[0, 0, 0] - image.get_fdata()[0, 0, 0])
# ITK's axes point to the left and to the back.
field = np.broadcast_to(np.float32([-4 * shift, -1, 3]), (*image.shape, 1, 3))
field = nib.Nifti1Image(np.ascontiguousarray(field), image.affine)
field.header.set_intent(1007)
nib.save(field, output + ".nii.gz")
"""
DOUBLES = """#Insight Transform File V1.0
#Transform 0
Transform: AffineTransform_double_3_3
Parameters: 2 0 0 0 2 0 0 0 2 0 0 0
FixedParameters: 0 0 0
"""


class Squares(nn.Module):
    """``L = mean u^2``."""

    def forward(self, ddf, pair, labels=None):
        loss = (ddf**2).mean()
        return {"loss": loss, "similarity": loss}


def inferer(program, *transforms):
    named = {"transforms": transforms} if transforms else {}
    return CommandInferer(
        [sys.executable, "-c", program, "{fixed}", "{moving}", "{output}"], Squares(), PIXDIM, **named
    )


def pair(moving=1.0, fixed=0.0):
    return torch.cat([torch.full((1, 1, *SHAPE), moving), torch.full((1, 1, *SHAPE), fixed)], 1)


def test_a_field_in_mm_becomes_one_in_voxels_of_the_grid():
    result = inferer(WRITES_A_SHIFT)(torch.cat([pair(), pair(0.5)]), nn.Identity())
    expected = torch.tensor([[2.0, 0.5, 1.5], [1.0, 0.5, 1.5]])[..., None, None, None].expand(2, 3, *SHAPE)
    torch.testing.assert_close(result["ddf"], expected)
    torch.testing.assert_close(result["losses"], (expected**2).mean((1, 2, 3, 4))[:, None])
    assert result["loss_identity"].tolist() == [0, 0]
    assert (result["seconds"] > 0).all()


@pytest.mark.parametrize(
    "command", ["{python} '{tool}'", "{python} -u {folder}/run.py --with={tool}", "sh -c 'x {tool}'"]
)
def test_an_edited_program_leads_to_other_results(tmp_path, monkeypatch, command):
    """Its command stayed the same, so the results of the program before were kept, in silence."""
    monkeypatch.chdir(tmp_path)
    tool = tmp_path / "tool.py"
    line = command.format(python=sys.executable, tool=tool.name, folder=tmp_path) + " {{fixed}} {{moving}} {{output}}"

    def made_of():
        return fingerprint(CommandInferer(line.format(), Squares(), PIXDIM))

    tool.write_text("shift = 1")
    first = made_of()
    assert made_of() == first
    tool.write_text("shift = 20")
    assert made_of() != first


def test_a_point_passes_through_the_transforms_in_their_order():
    program = f"{WRITES_A_SHIFT}\nopen(output + '.tfm', 'w').write('''{DOUBLES}''')"
    first, second = "{output}.nii.gz", "{output}.tfm"
    voxels = torch.stack(torch.meshgrid(*map(torch.arange, SHAPE), indexing="ij"))
    shift = torch.tensor([2.0, 0.5, 1.5]).reshape(3, 1, 1, 1)
    ddf = inferer(program, first, second)(pair(), nn.Identity())["ddf"]
    torch.testing.assert_close(ddf[0], 2 * (voxels + shift) - voxels)
    ddf = inferer(program, second, first)(pair(), nn.Identity())["ddf"]
    torch.testing.assert_close(ddf[0], 2 * voxels + shift - voxels)


def test_the_consistency_of_a_command_is_measured_like_that_of_a_network():
    result = ConsistencyInferer(inferer(WRITES_A_SHIFT), True, True)(pair(), nn.Identity())
    assert [result[key][0, 0, 0, 0, 0].item() for key in ("ddf", "swapped_ddf", "self_ddf")] == [2, -2, 0]


def test_a_line_is_split_as_a_shell_does_and_the_program_gets_our_threads(monkeypatch, tmp_path):
    program = tmp_path / "a program"
    program.write_text(
        f"#!{sys.executable}\nimport os\nopen({str(tmp_path / 'said')!r}, 'w').write(os.environ['OMP_NUM_THREADS'])\n"
        + WRITES_A_SHIFT
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    ddf = CommandInferer("'a program' {fixed} {moving} {output}", Squares(), PIXDIM)(pair(), nn.Identity())["ddf"]
    assert ddf[0, 0].unique().item() == 2
    assert (tmp_path / "said").read_text() == str(torch.get_num_threads())


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("print('some words'); import sys; sys.exit('no memory left')", "failed with status 1: no memory left"),
        ("pass", "wrote no {output}.nii.gz; name the files that it writes as transforms"),
        ("import sys; open(sys.argv[3] + '.nii.gz', 'w').write('x')", "output.nii.gz: not a transform, or damaged"),
    ],
)
def test_a_command_that_fails_is_one_true_line(program, said):
    with pytest.raises(ValueError) as refused:
        inferer(program)(pair(), nn.Identity())
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_transform_that_moves_the_masks_apart_has_no_result():
    registers = inferer(WRITES_A_SHIFT)
    registers.loss = RegistrationLoss(MSELoss(), BendingEnergyLoss(), 1.0)
    mask = torch.zeros(1, 1, *SHAPE)
    mask[:, :, :2] = 1
    moving, fixed = pair().chunk(2, 1)
    with pytest.raises(ValueError, match="has a loss of nan, expected a number; if the images have masks, it moves"):
        registers(torch.cat([moving, mask, fixed, mask], 1), nn.Identity())
    assert registers(torch.cat([moving, torch.ones_like(mask), fixed, mask], 1), nn.Identity())["losses"].isfinite()


def test_a_command_that_hangs_is_ended_with_all_that_it_started(tmp_path):
    os.mkfifo(tmp_path / "alive")
    alive = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    program = f"(echo started; exec sleep 300) > '{tmp_path / 'alive'}' & sleep 300; : {{fixed}} {{moving}} {{output}}"
    hanging = CommandInferer(["sh", "-c", program], Squares(), PIXDIM, minutes=0.05)
    with pytest.raises(
        ValueError, match="^sh was ended after 0.05 minutes; see why it hangs, or give it more by [a-z_]+$"
    ):
        hanging(pair(), nn.Identity())
    assert os.read(alive, 100) == b"started\n"
    for _ in range(100):
        try:
            end = os.read(alive, 100)  # of the file, once nobody can write to it
            break
        except BlockingIOError:
            time.sleep(0.1)
    assert end == b""
    os.close(alive)
    given = CommandInferer(hanging.command, Squares(), PIXDIM, minutes=1)
    assert fingerprint(hanging) == fingerprint(given)


def test_a_command_that_is_not_there_and_one_without_a_place_for_its_files():
    with pytest.raises(ValueError, match="cannot run no-such-tool .*is it installed and on the PATH?"):
        CommandInferer("no-such-tool {fixed} {moving} {output}", Squares(), PIXDIM)(pair(), nn.Identity())
    with pytest.raises(ValueError, match="'tool {fixed}' lacks {moving}, {output}"):
        CommandInferer("tool {fixed}", Squares(), PIXDIM)


def test_slices_are_refused():
    with pytest.raises(ValueError, match="registers volumes"):
        inferer(WRITES_A_SHIFT)(torch.zeros(1, 2, 8, 8), nn.Identity())


def test_the_overlay_takes_a_peer_or_a_command_of_ones_own():
    def configured(**values):
        parser = ConfigParser()
        parser.read_config([str(INFERENCE), str(ROOT / "configs/overlays/command.yaml")])
        parser.update(values)
        return parser.get_parsed_content("inferer")

    peer = configured()
    assert peer.command[:3] == [sys.executable, str(ROOT / "bundle/apps/peers.py"), "ants"]
    assert peer.transforms == ["{output}.nii.gz"]
    assert (peer.minutes, configured(command_minutes=None).minutes) == (120, None)
    assert configured(program="greedy").command[2:] == ["greedy", "{fixed}", "{moving}", "{output}"]
    own = configured(command="my_tool {fixed} {moving} {output}.h5", transforms_written=["{output}.h5"])
    assert own.command == ["my_tool", "{fixed}", "{moving}", "{output}.h5"]
    assert own.transforms == ["{output}.h5"]


def test_a_registration_by_a_command_leaves_what_every_registration_leaves(tiny_dataset, command, tmp_path):
    program = tmp_path / "tool.py"
    program.write_text(WRITES_A_SHIFT)
    finished = command.register(
        tmp_path / "out",
        config=f"['{INFERENCE}','{ROOT / 'configs/overlays/command.yaml'}']",
        dataset_dir=tiny_dataset,
        datalist=tiny_dataset / "datalist.json",
        section="test",
        command=f"{sys.executable} '{program}' {{fixed}} {{moving}} {{output}}",
    )
    assert finished.code == 0, finished.error
    (metrics,) = (tmp_path / "out").glob("*/metrics.json")
    displacement = nib.load(metrics.with_name("displacement.nii.gz")).get_fdata()[:, :, :, 0]
    np.testing.assert_allclose(displacement[..., 1:], np.broadcast_to([-1, 3], (*displacement.shape[:3], 2)), atol=1e-3)
    assert np.ptp(displacement[..., 0]) < 1e-3
    found = json.loads(metrics.read_text())
    assert found["adaptation"].keys() == {"best_loss", "loss_identity"}
    assert found["adaptation"]["best_loss"] == found["loss"][0] != found["adaptation"]["loss_identity"]


@pytest.mark.parametrize("arguments", [[], ["elastix", "a", "b", "c"], ["ants", "a", "b"]])
def test_the_peers_say_how_they_are_called(arguments):
    assert main(arguments) == "usage: peers.py ants|greedy|convexadam FIXED MOVING OUTPUT"


def test_a_peer_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "picsl_greedy", None)
    said = main(["greedy", "a", "b", "c"])
    assert said.startswith(f"greedy is not installed for {sys.executable}")
    assert said.endswith(f"see the top of {Path(ROOT, 'bundle/apps/peers.py')}")
