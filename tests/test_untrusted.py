"""Files from anywhere: whatever is in them, one line comes out; nothing runs, and no memory is taken for a promise."""

import ast
import contextlib
import json
import os
import re
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus import (
    AFFINE,
    CODE_HAS_RUN,
    DAMAGED,
    IMAGES,
    TRANSFORMS,
    affine_transform,
    array,
    by_itk,
    dicom,
    displacements,
    file,
    matlab,
    nifti,
    png_of,
    saved,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle.data import read_datalist
from bundle.formats import load_image, read_landmarks, read_points, read_transform
from bundle.registration import WeightsLoader
from bundle.system.limits import EXPANSION, MOST_VALUES, Refused, check_declared

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "bundle").rglob("*.py"))
BOUND = 2**30
"""Bytes of memory that reading one of the small files here may take, on top of what there is."""

fuzzed = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
Changes = st.one_of(
    st.tuples(st.just("cut"), st.floats(0, 1, exclude_max=True)),
    st.tuples(
        st.just("flip"),
        st.lists(
            st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from([0, 1, 127, 128, 255]) | st.integers(0, 255)),
            min_size=1,
            max_size=8,
        ),
        # Flips over the whole file seldom meet its header.
        st.sampled_from([64, 400, 10**9]),
    ),
    st.tuples(st.just("random"), st.binary(max_size=600)),
)
MARKUPS = b'{"markups": [{"coordinateSystem": "LPS", "controlPoints": [{"id": "1", "position": [1, 2, 3]}]}]}'
FIDUCIALS = b"# CoordinateSystem = LPS\n# columns = id,x,y,z,ow\n1,2,3,4,0\n"
VTK = b"# vtk DataFile Version 3.0\nx\nASCII\nDATASET POLYDATA\nPOINTS 2 float\n1 2 3\n4 5 6\n"
STL = (
    b"solid a\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\nendloop\nendfacet\nendsolid\n"
)
DATALIST = (
    b'{"training": [{"image": "a.nii", "patient": "A"}], "test": [{"fixed_image": "a.nii", "moving_image": "a.nii"}]}'
)

READERS = {
    "nii": (nifti("a.nii"), load_image),
    "nii.gz": (nifti("a.nii.gz"), load_image),
    "nrrd": (by_itk("a.nrrd"), load_image),
    "nrrd_packed": (by_itk("a.nrrd", compression=True), load_image),
    "mha": (by_itk("a.mha"), load_image),
    "mha_packed": (by_itk("a.mha", compression=True), load_image),
    "dicom": (dicom, load_image),
    "npy": (array(AFFINE, "a.npy"), load_image),
    "png": (file("a.png", png_of(20, 18)), load_image),
    "tfm": (affine_transform, read_transform),
    "h5": (displacements("a.h5"), read_transform),
    "mat": (file("a.mat", matlab(12)), read_transform),
    "field": (nifti("a.nii", intent_code=1007), read_transform),
    "csv": (file("a.csv", b"x,y,z\n1,2,3\n4,5,6\n"), read_points),
    "landmarks": (file("a.csv", b"i,j,k\n1,2,3\n"), lambda path: read_landmarks(path, AFFINE, None, planar=False)),
    "mrk.json": (file("a.mrk.json", MARKUPS), read_points),
    "fcsv": (file("a.fcsv", FIDUCIALS), read_points),
    "vtk": (file("a.vtk", VTK), read_points),
    "stl": (file("a.stl", STL), read_points),
    "datalist": (file("a.json", DATALIST), lambda path: read_datalist(path.parent, path)),
    "patients": (file("patients.csv", b"image,patient\na,A\n"), lambda path: read_datalist(path.parent)),
    "weights": (
        saved(torch.nn.Linear(2, 2).state_dict()),
        lambda path: WeightsLoader(str(path), {"network": torch.nn.Linear(2, 2)})(None),
    ),
}


def changed(content, change):
    """Content of a file after random damage."""
    kind, what, *reach = change
    if kind == "cut":
        return content[: int(what * len(content))]
    if kind == "random":
        return what
    spoilt = bytearray(content)
    for place, value in what:
        spoilt[int(place * min(len(content), reach[0]))] = value
    return bytes(spoilt)


@contextlib.contextmanager
def bounded_memory():
    """A larger allocation than ``BOUND`` fails, as a ``MemoryError`` or in the way of the library."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + BOUND, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", READERS)
def test_damage_is_a_line_that_names_the_file(tmp_path, name):
    write, read = READERS[name]
    path = write(tmp_path)
    target = sorted(path.iterdir())[3] if path.is_dir() else path
    whole = target.read_bytes()

    @fuzzed
    @given(Changes)
    def check(change):
        target.write_bytes(changed(whole, change))
        with bounded_memory():
            try:
                read(path)
            except (ValueError, FileNotFoundError) as error:
                text = str(error)
                # A data set has all its problems in one message, a line each.
                assert name in ("datalist", "patients") or "\n" not in text
                assert not re.search(r"Unable to allocate|Cannot allocate|bad_alloc|not enough memory", text)
                assert str(path.name) in text or str(tmp_path) in text or name == "datalist"

    check()


Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["image", "fixed_image", "moving_image", "patient", "pair_id", "task", "landmarks", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@fuzzed
@given(st.dictionaries(st.sampled_from(["training", "validation", "test", "registration_val", "name"]), Json))
def test_any_json_is_a_datalist_or_an_error(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    (folder / "any.json").write_text(json.dumps(content))
    with contextlib.suppress(ValueError):
        sections = read_datalist(folder, "any.json")
        assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", pair["pair_id"]) for pair in sum(sections.values(), []))


HUGE = {
    name: case
    for name, case in {**IMAGES, **TRANSFORMS}.items()
    if name.startswith("huge_") or name == "declares_more_than_it_holds"
}


@pytest.mark.parametrize("name", HUGE)
def test_a_promise_takes_no_memory(tmp_path, name):
    write, words = HUGE[name]
    path = write(tmp_path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with bounded_memory(), pytest.raises(ValueError) as failure:
        (read_transform if name in TRANSFORMS else load_image)(path)
    assert words in str(failure.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 2**17  # in KiB: libraries that load late


def test_volumes_of_today_are_within_the_limits(tmp_path):
    check_declared((512, 512, 512, 1), 4, None)
    check_declared((256, 256, 180, 60), 2, None)
    check_declared((1024, 1024, 1024), 1, None)
    with pytest.raises(Refused, match=rf"1024 x 1024 x 1025 values, more than the {MOST_VALUES} that are read"):
        check_declared((1024, 1024, 1025), 1, None)
    (tmp_path / "a").write_bytes(b"x" * 1000)
    check_declared((EXPANSION, 1000), 1, tmp_path / "a")
    with pytest.raises(Refused, match="which a file of 1000 bytes cannot hold"):
        check_declared((EXPANSION, 1001), 1, tmp_path / "a")


def test_a_volume_that_compresses_to_nothing_is_read(tmp_path):
    """The most that deflate can do is within what a file may stand for."""
    assert load_image(nifti("a.nii.gz", np.zeros((256, 256, 64), np.float32))(tmp_path)).shape == (1, 256, 256, 64)
    path = by_itk("a.nrrd", np.zeros((256, 256, 64), np.float32), compression=True)(tmp_path)
    assert load_image(path).shape == (1, 256, 256, 64)


@pytest.mark.parametrize("name", ["objects", "pickle"])
def test_no_object_of_an_array_is_made(tmp_path, name):
    write, words = IMAGES[name]
    with pytest.raises(ValueError, match=words):
        load_image(write(tmp_path))
    assert not CODE_HAS_RUN.exists()


def test_an_image_in_the_wrong_clothes_is_refused(tmp_path):
    """A pickle under the name of any format is damaged data."""
    write, _ = IMAGES["pickle"]
    content = write(tmp_path).read_bytes()
    for suffix in (".nii", ".nii.gz", ".nrrd", ".mha", ".png", ".dcm"):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=DAMAGED):
            load_image(path)


def calls(path):
    """``(name, keywords)`` of every call in a file; ``torch.load`` by its whole name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_in_the_sources_runs_what_it_reads(path):
    tree = ast.parse(path.read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not imported & {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
    for name, words in calls(path):
        assert name not in ("eval", "exec", "compile", "os.system", "yaml.load", "yaml.unsafe_load"), name
        assert words.get("allow_pickle", "False") == "False"
        assert name != "torch.load" or words.get("weights_only") == "True"


def test_yaml_asks_for_no_pickle():
    for path in (path for path in (ROOT / "configs").rglob("*") if path.is_file()):
        text = path.read_text()
        assert "pickle" not in text, path
        assert "weights_only" not in text, path
