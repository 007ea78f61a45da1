"""Pairs: moving first, images and labels joined on one grid, episodes collated one by one."""

import ast
import re
from pathlib import Path

import pytest
import torch
import yaml
from monai.data import MetaTensor

from bundle.data import SIDES, PreparePair, collate_episodes, images_of, join_pair, pairs, split_pair


def test_join_puts_moving_first_and_split_takes_it_apart():
    moving, fixed = torch.full((2, 3, 4, 5, 6), 7.0), torch.full((2, 3, 4, 5, 6), 9.0)
    joined = join_pair(moving, fixed)
    assert joined[1, :, 2, 2, 2].tolist() == [7, 7, 7, 9, 9, 9]
    assert all(torch.equal(part, whole) for part, whole in zip(split_pair(joined), (moving, fixed), strict=True))


def test_join_refuses_two_grids():
    with pytest.raises(ValueError, match=r"moving has shape \(1, 1, 4, 5, 6\) and fixed \(1, 1, 4, 5, 7\)"):
        join_pair(torch.zeros(1, 1, 4, 5, 6), torch.zeros(1, 1, 4, 5, 7))


def batch(structures):
    image = MetaTensor(torch.arange(60.0).reshape(1, 1, 3, 4, 5), affine=torch.eye(4))
    labels = {f"{side}_label": torch.rand(1, structures, 3, 4, 5) for side in ("fixed", "moving")} if structures else {}
    return {"fixed_image": image, "moving_image": image + 100, **labels}


def test_prepare_joins_images_and_labels_as_plain_tensors():
    data = batch(structures=2)
    pair, labels = PreparePair()(data, "cpu", dtype=torch.float64)
    assert type(pair) is torch.Tensor
    assert pair.dtype == torch.float64
    assert pair[0, :, 1, 2, 3].tolist() == [133.0, 33.0]
    assert labels.shape == (1, 4, 3, 4, 5)
    assert torch.equal(labels[:, :2], data["moving_label"].double())


def test_prepare_gives_no_labels_unless_both_images_have_one():
    data = batch(structures=1)
    del data["moving_label"]
    assert PreparePair()(data)[1] is None
    assert PreparePair()(batch(structures=0))[1] is None


def test_episodes_of_different_sizes_are_batches_of_their_own():
    items = [{"fixed_image": torch.full((1, size, 4, 5), float(size)), "pair_id": f"p{size}"} for size in (3, 6)]
    episodes = collate_episodes(items)
    assert [episode["fixed_image"].shape for episode in episodes] == [(1, 1, 3, 4, 5), (1, 1, 6, 4, 5)]
    assert [episode["pair_id"] for episode in episodes] == [["p3"], ["p6"]]


def test_labels_go_to_the_inferer_only_when_asked():
    _pair, labels, positional, named = PreparePair(adapt_to_labels=True)(batch(structures=2))
    assert positional == ()
    assert named["labels"] is labels


def test_masks_follow_their_image_and_a_missing_one_is_ones():
    data = batch(structures=2)
    data["fixed_mask"] = torch.rand(1, 1, 3, 4, 5)
    pair, labels = PreparePair()(data)
    assert pair.shape == (1, 4, 3, 4, 5)
    moving, fixed = split_pair(pair)
    assert torch.equal(moving[:, :1], data["moving_image"].as_tensor())
    assert torch.equal(moving[:, 1:], torch.ones(1, 1, 3, 4, 5))
    assert torch.equal(fixed[:, 1:], data["fixed_mask"])
    assert labels.shape == (1, 4, 3, 4, 5)
    assert torch.equal(images_of(pair), PreparePair()(batch(structures=0))[0])
    data["moving_mask"] = torch.zeros(1, 1, 3, 4, 5)
    assert not PreparePair()(data)[0][:, 1].any()


def test_masks_of_slices_lose_the_slice_axis_too():
    image = torch.rand(1, 1, 6, 5, 1)
    data = {"fixed_image": image, "moving_image": image, "moving_mask": torch.ones(1, 1, 6, 5, 1)}
    assert PreparePair(spatial_dims=2)(data)[0].shape == (1, 4, 6, 5)


# --- keys -----------------------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[1]
ROOMS = ("data", "maps", "results", "evaluation", "pages")
TABLE = [line.split(" | ") for line in pairs.__doc__.splitlines() if line.count(" | ") == 3][2:]
KEYS = {row[0]: row for row in TABLE}
PAIR_NAMES = {"data", "output", "batchdata", "pair"}
"""What functions of these rooms call a pair."""
ELSEWHERE = {
    "dataset.py": {"image", "label"},  # single images, which map networks train on
    "targets.py": {"image", "label"},
    "layouts.py": set(SIDES),  # Learn2Reg's pairs
}


def texts(node):
    """What an expression may be as a text, ``*`` for what is not known."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return ["".join(part.value if isinstance(part, ast.Constant) else "*" for part in node.values)]
    return texts(node.body) + texts(node.orelse) if isinstance(node, ast.IfExp) else []


def is_pair(node):
    return isinstance(node, ast.Name) and node.id in PAIR_NAMES


def keys_in(code):
    """Keys of pairs in code: ``data[key]``, ``key in data``, ``data.get(key)`` and ``{**data, key: ...}``."""
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Subscript(value=of, slice=key) if is_pair(of):
                yield from texts(key)
            case ast.Compare(left=key, ops=[ast.In() | ast.NotIn()], comparators=[of]) if is_pair(of):
                yield from texts(key)
            case ast.Call(func=ast.Attribute(value=of, attr="get" | "pop"), args=[key, *_]) if is_pair(of):
                yield from texts(key)
            case ast.Dict(keys=keys, values=values) if any(map(is_pair, values)):
                yield from (text for key in keys if key for text in texts(key))


def keys_of(config):
    """Keys of pairs that a configuration names; the names of ``Moving`` are of weights."""
    if isinstance(config, dict) and config.get("_target_") != "bundle.registration.Moving":
        for name, value in config.items():
            if name in ("keys", "names", "key_dst"):
                yield from [value] if isinstance(value, str) else value
            else:
                yield from keys_of(value)
    elif isinstance(config, list):
        for value in config:
            yield from keys_of(value)


def written(key):
    """Rows of the table that a key may be of; ``*`` stands for anything."""
    pattern = re.escape(key).replace(r"\*", "[a-z_]+")
    own = {name: [re.sub("<[a-z]+>", value, name) for value in (*SIDES, "image", "label")] for name in KEYS}
    return {name for name, spelled in own.items() if any(re.fullmatch(pattern, text) for text in spelled)}


def used():
    """``(file, key)`` of every key of a pair in the rooms that have to do with pairs, and in the configurations."""
    for path in (path for room in ROOMS for path in (ROOT / "bundle" / room).glob("*.py")):
        found = set(keys_in(path.read_text())) - ELSEWHERE.get(path.name, set())
        yield from ((path.name, key) for key in found)
    for name in ("train.yaml", "inference.yaml", "overlays/2d.yaml"):
        yield from ((name, key) for key in keys_of(yaml.safe_load((ROOT / "configs" / name).read_text())))


def test_every_key_that_is_used_is_written_down():
    assert not {(file, key) for file, key in used() if not written(key)}


def test_every_key_that_is_written_down_is_used():
    assert set(KEYS) == {name for _, key in used() for name in written(key)}
    assert len(KEYS) == len(TABLE)
    assert all(cell.strip() for row in TABLE for cell in row)


def test_the_table_would_miss_a_key():
    code = 'data["new"] = {**data, f"{side}_shape": 1, "page": 2}; x = "old" in data or data.get("fixed_image")'
    assert set(keys_in(code)) == {"new", "*_shape", "page", "old", "fixed_image"}
    assert [key for key in sorted(keys_in(code)) if not written(key)] == ["*_shape", "new", "old"]
