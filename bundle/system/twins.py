"""Configurations that MONAI's tools need in a second form, generated from their single source."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from bundle.system.configurations import CONFIGS
from bundle.system.files import written_whole

SLICES = ("overlays/2d.yaml", "overlays/voxelmorph.yaml", "presets/cpu_2d.yaml")
WRITTEN_OUT = {
    "inference_2d.yaml": (
        "inference.yaml",
        (*SLICES, "presets/octa_2d.yaml"),
        """# Registration of pairs of slices (PNG, JPEG, TIFF, NIfTI of one slice), as one file:
# {parts}.
# Edit those; `python -m bundle write_json` writes this.
#   python -m monai.bundle run --config_file configs/inference_2d.yaml --dataset_dir DATA --output_dir OUT
# Every value below can be given on the command line: --steps 10 --weights runs/training/model.pt
""",
    ),
    "fine_tune_2d.yaml": (
        "train.yaml",
        (*SLICES, "presets/fine_tune_2d.yaml"),
        """# Ten epochs on pairs of slices of your own domain (Park et al. 2021), as one file:
# {parts}.
# Edit those; `python -m bundle write_json` writes this.
#   python -m monai.bundle run training --config_file configs/fine_tune_2d.yaml --dataset_dir DATA --output_dir OUT
# Every value below can be given on the command line. inference_2d.yaml with --weights OUT/model.pt registers.
""",
    ),
}
"""Name of a configuration of slices -> the configuration and overlays that it is, written out, and its header."""
KEY = re.compile(r"(\w+):")


def write_twins() -> None:
    """Write ``train.json`` and ``inference.json`` for ``monai.bundle.load``, and the configurations of slices.

    ``load`` knows nothing of this package, so the number of maps that the shipped network sees is written out.
    """
    from monai.bundle import ConfigParser

    contents = {name: ConfigParser.load_config_file(CONFIGS / f"{name}.yaml") for name in ("train", "inference")}
    maps_seen = ConfigParser(contents["inference"]).get_parsed_content("maps_seen")
    for name, content in contents.items():
        content["maps_seen"] = maps_seen
        with written_whole(CONFIGS / f"{name}.json") as file:
            file.write(json.dumps(content, indent=2) + "\n")
    for name in WRITTEN_OUT:
        with written_whole(CONFIGS / name) as file:
            file.write(written_out(name))


def written_out(name: str) -> str:
    """The text of a configuration of ``WRITTEN_OUT``."""
    base, overlays, header = WRITTEN_OUT[name]
    *others, last = (Path(overlay).name for overlay in overlays)
    parts = f"{base} with {', '.join(others)} and {last}"
    return header.format(parts=parts) + "\n" + joined(CONFIGS / base, [CONFIGS / each for each in overlays])


def joined(base: Path, overlays: Sequence[Path]) -> str:
    """A configuration with overlays as one text, with the comments of both.

    A key of an overlay replaces the base's. A key that the base does not have is put after its neighbour in the
    overlay, if something refers to it. A key of the base to which nothing refers any more is left out.
    """
    head, *blocks = _blocks(base.read_text())
    ends = {key for key, _ in blocks if not _asked_for(key, blocks)}
    for overlay in overlays:
        place = 0
        for key, block in _blocks(overlay.read_text()):
            found = [number for number, (other, _) in enumerate(blocks) if key and other == key]
            if found:
                place = found[0]
                blocks[place] = (key, block)
            elif key and place:
                place += 1
                blocks.insert(place, (key, block))
    while unused := {key for key, _ in blocks if key and key not in ends and not _asked_for(key, blocks)}:
        blocks = [(key, block) for key, block in blocks if key not in unused]
    return head[1].partition("\n\n")[2] + re.sub(r"\n{3,}", "\n\n", "".join(block for _, block in blocks))


def _blocks(text: str) -> list[tuple[str, str]]:
    """Top-level keys with everything below them; blank lines and comments between them have no key."""
    found: list[tuple[str, str]] = []
    for line in text.splitlines(keepends=True):
        match = KEY.match(line)
        if match or not found or (found[-1][0] and not line.startswith(" ")):
            found.append((match[1] if match else "", line))
        else:
            found[-1] = (found[-1][0], found[-1][1] + line)
    return found


def _asked_for(key: str, blocks: Sequence[tuple[str, str]]) -> bool:
    """Whether another block refers to a key."""
    return any(re.search(rf"[@%]{key}\b", block) for other, block in blocks if other != key)
