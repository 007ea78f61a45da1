"""A fingerprint changes with whatever changes a result, and with nothing else."""

import itertools
import os
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from operator import itemgetter

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from torch import nn

from bundle.data import InitialAlignmentd
from bundle.registration import AdaptationInferer, RegistrationLoss
from bundle.system import fingerprint, hash_of_files, sources
from bundle.system.fingerprints import size_of


def inferer(lr=0.1, steps=5, weight=1.0):
    loss = RegistrationLoss(nn.MSELoss(), nn.L1Loss(), weight)
    return AdaptationInferer(loss, partial(torch.optim.Adam, lr=lr), steps=steps)


def scaled(by):
    return lambda value: value * by


def tensor(dtype=torch.float32, first=0.0):
    return torch.tensor([first, 1.0], dtype=dtype)


DIFFERENT = [
    (1, 2),
    (1, 1.0),
    (1, True),
    (1, "1"),
    (None, False),
    ([1, 2], [2, 1]),
    ([[1], 2], [[1, 2]]),
    ({"a": 1}, {"b": 1}),
    (tensor(), tensor(first=0.5)),
    (tensor(), tensor(torch.float64)),
    (tensor(), tensor()[None]),
    (tensor(torch.bfloat16), tensor(torch.bfloat16, first=0.5)),
    (torch.tensor(1), torch.tensor(2)),
    (np.arange(3), np.arange(1, 4)),
    (inferer(), inferer(lr=0.2)),
    (inferer(), inferer(steps=4)),
    (inferer(), inferer(weight=2.0)),
    (Compose([InitialAlignmentd("center")]), Compose([InitialAlignmentd("world")])),
    (Compose([InitialAlignmentd("center")]), Compose([])),
    (lambda value: value + 1, lambda value: value + 2),
    (lambda value: value in (1, 2), lambda value: value in (1, 3)),
    (lambda value: value in {"a", "b"}, lambda value: value in {"a", "c"}),
    (lambda value: dict(a=value), lambda value: dict(b=value)),  # noqa: C408 - the names are constants of the code
    (lambda value: [(lambda: value + 1)()], lambda value: [(lambda: value + 2)()]),
    (lambda *, by=1: by, lambda *, by=2: by),
    (scaled(2), scaled(3)),
    (slice(1, 2), slice(1, 3)),
    (re.compile("a"), re.compile("b")),
    (re.compile("a"), re.compile("a", re.IGNORECASE)),
    (itemgetter(1), itemgetter(2)),
    (torch.relu, torch.sigmoid),
    ("a".replace, "b".replace),
    (torch.optim.Adam, torch.optim.SGD),
    (inferer().loss, inferer(weight=2.0).loss),
]


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_what_differs_differs(first, second):
    assert fingerprint(first) != fingerprint(second)


def equals():
    torch.manual_seed(0)
    yield nn.Linear(2, 3)
    yield inferer()
    yield Compose([InitialAlignmentd("center"), scaled(2)])
    yield {"a": 1, "b": [None, 2.5]}
    yield {3, 1, 2}
    yield object()
    yield [torch.Generator(), np.random.default_rng(), threading.Lock()]


def test_what_is_equal_is_equal_whatever_the_object():
    for first, second in zip(equals(), equals(), strict=True):
        assert first is not second
        assert fingerprint(first) == fingerprint(second)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    counted = itertools.count()
    before = fingerprint(counted)
    assert next(counted) == 0
    assert fingerprint(counted) == before
    assert fingerprint(np.random.RandomState(1)) == fingerprint(np.random.RandomState(2))


def test_weights_count_by_content():
    torch.manual_seed(0)
    network = nn.Linear(2, 3)
    before = fingerprint(network)
    with torch.no_grad():
        network.bias[1] += 1e-6
    assert fingerprint(network) != before


def test_objects_that_hold_each_other_have_an_end():
    first, second = {}, {}
    first["other"], second["other"] = second, first
    assert len(fingerprint(first)) == 16


def test_another_process_finds_the_same(tmp_path):
    (tmp_path / "own.py").write_text(
        "def among(value): return value in {'b', 'a'}, value in ('b', 'a'), (lambda *, by='b': by)(by='a')\n"
        "def again(value): return value in {'b', 'a'}, value in ('b', 'a')\n"
    )
    script = (
        "import re, torch, own; from bundle.data import *; from bundle.system import fingerprint\n"
        "from monai.transforms import Compose\n"
        "value = Compose([InitialAlignmentd('center'), lambda x: x + 1]), {'b', 'a'}, torch.ones(2)\n"
        "print(fingerprint(value, own.among, own.again, torch.relu, slice(1), re.compile('a'), object()))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    # The first process compiles the module, the others read what it left.
    command = [sys.executable, "-W", "ignore", "-c", script]
    found = {subprocess.check_output(command, text=True, env=environment) for _ in range(3)}
    assert len(found) == 1


def test_a_file_counts_by_its_content_not_by_its_time(tmp_path):
    image = tmp_path / "a.nii"
    image.write_bytes(b"old")
    pair = {"fixed_image": str(image)}
    before, cached = sources(pair), hash_of_files(pair)
    os.utime(image, ns=(0, 0))
    assert sources(pair) == before
    assert hash_of_files(pair) != cached  # which reads no content, since it is asked in every iteration
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = {"fixed_image": shutil.copy(image, elsewhere)}
    assert sources(moved) == before
    assert hash_of_files(moved) != cached
    assert sources({"fixed_image": str(tmp_path / "none.nii")}) != sources({"fixed_image": str(elsewhere / "none.nii")})
    image.write_bytes(b"new")
    assert sources(pair) != before


def test_what_an_object_says_does_not_count_does_not():
    class Writer:
        does_not_count = ("folder",)

        def __init__(self, folder, digits):
            self.folder, self.digits = folder, digits

    assert fingerprint(Writer("a", 3)) == fingerprint(Writer("b", 3)) != fingerprint(Writer("b", 4))


VOXELS_ELSEWHERE = {
    "a.mhd": ("ElementDataFile = my voxels.raw\n", "my voxels.raw"),
    "b.mhd": ("ElementDataFile = LIST\nfirst.raw\nsecond.raw\n", "second.raw"),
    "c.mhd": ("ElementDataFile = part%02d.raw 1 2 1\n", "part02.raw"),
    "a.nhdr": ("NRRD0005\ndata file: voxels.raw.gz\n", "voxels.raw.gz"),
    "b.nhdr": ("NRRD0005\r\ndata file: LIST\r\nfirst.raw\r\nsecond.raw\r\n", "second.raw"),
    "a.hdr": ("header", "a.img"),
    "b.hdr.gz": ("header", "b.img.gz"),
    "c.img": ("voxels", "c.hdr"),
}


def test_a_name_is_a_name_whatever_folder_is_called_so(tmp_path, monkeypatch):
    """In the folder of the results, that of a pair has its name, and what is in it changes with every run."""
    monkeypatch.chdir(tmp_path)
    entry = {"pair_id": "a_to_b", "patient": "P0", "task": "brain", "image": "a.nii"}
    before = sources(entry)
    assert before == [["image", "a.nii", []], ["pair_id", "a_to_b", []], ["patient", "P0", []], ["task", "brain", []]]
    for name in ("a_to_b", "P0", "brain"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text("{}")
    assert sources(entry) == before


@pytest.mark.parametrize("name", VOXELS_ELSEWHERE)
def test_voxels_in_another_file_than_their_header_count(tmp_path, name):
    text, voxels = VOXELS_ELSEWHERE[name]
    (tmp_path / name).write_text(text)
    (tmp_path / voxels).write_bytes(b"old")
    (tmp_path / "other.raw").write_bytes(b"other")
    before = sources({"image": str(tmp_path / name)}, size_of)
    (tmp_path / "other.raw").write_bytes(b"others")
    assert sources({"image": str(tmp_path / name)}, size_of) == before
    (tmp_path / voxels).write_bytes(b"newer")
    assert sources({"image": str(tmp_path / name)}, size_of) != before
