"""The house stands: rooms import downwards only, and only YAML names trainers, inferers and handlers."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from pydoc import locate

import pytest

ROOT = Path(__file__).parents[1]
STANDING = {  # each room with those it stands on directly; it may use what these stand on as well
    "system": (),
    "geometry": ("system",),
    "dicom": ("geometry",),
    "formats": ("dicom",),
    "data": ("formats",),
    "simulation": ("data",),
    "registration": ("data",),
    "maps": ("registration",),
    "meta": ("registration",),
    "results": ("registration",),
    "evaluation": ("results",),
    "pages": ("evaluation",),
    "experiment": ("pages",),
}


def below(room):
    """Every room that a room may import from."""
    return {*STANDING[room], *(deeper for direct in STANDING[room] for deeper in below(direct))}


BELOW = {room: below(room) for room in STANDING}
ONLY_YAML_NAMES = (
    "meta/trainer.py",
    "meta/handlers.py",
    "registration/inferers.py",
    "registration/commands.py",
    "registration/consistency.py",
    "results/evaluator.py",
)
MODULES = sorted(path for path in (ROOT / "bundle").rglob("*.py"))


def name(path):
    return str(path.relative_to(ROOT))


def imports(path):
    """``(module, name)`` of everything a file imports, wherever the statement stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}: imports are absolute"
            yield from ((node.module, alias.name) for alias in node.names)


def rooms(path):
    """Parts of the bundle that a file imports from: ``data`` for ``from bundle.data.pairs import x``."""
    for module, imported in imports(path):
        parts = [*module.split("."), imported]
        if parts[0] == "bundle":
            yield parts[1]


def test_the_drawing_of_the_house_is_true():
    page = (ROOT / "docs/architecture.md").read_text()
    drawn = [line.split()[0] for line in page.split("```")[1].strip().splitlines()]
    assert sorted(drawn) == sorted([*STANDING, "apps"])
    for room in STANDING:
        assert all(drawn.index(other) > drawn.index(room) for other in BELOW[room]), room


def test_every_room_is_known():
    found = {path.name for path in (ROOT / "bundle").iterdir() if (path / "__init__.py").exists()}
    assert found == {*BELOW, "apps"}  # the applications stand on all rooms


@pytest.mark.parametrize("room", BELOW)
def test_rooms_import_downwards_only(room):
    for path in (ROOT / "bundle" / room).glob("*.py"):
        above = set(rooms(path)) - BELOW[room] - {room}
        assert not above, f"{name(path)} imports {', '.join(sorted(above))}"


def test_meta_and_evaluation_do_not_know_each_other():
    assert "evaluation" not in BELOW["meta"]
    assert "meta" not in BELOW["evaluation"]


def test_only_yaml_names_trainers_inferers_and_handlers():
    hidden = [ROOT / "bundle" / path for path in ONLY_YAML_NAMES]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in hidden}
    classes = {
        node.name for path in hidden for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)
    }
    assert {"ReptileTrainer", "AdaptationInferer", "ResumableCheckpoint", "RegistrationEvaluator"} <= classes
    for path in MODULES:
        if path.name == "__init__.py":
            continue
        for module, imported in imports(path):
            assert module not in modules, f"{name(path)} imports {module}"
            assert not (module.startswith("bundle") and imported in classes), f"{name(path)} imports {imported}"


def test_files_of_a_room_name_their_siblings_by_module():
    """A module that imports its own room would import itself half-made."""
    for path in MODULES:
        room = path.parent.name
        if room in BELOW and path.name != "__init__.py":
            own = {imported for module, imported in imports(path) if module == f"bundle.{room}"}
            assert all((path.parent / f"{module}.py").exists() for module in own), name(path)


def test_nothing_but_yaml_knows_the_maps():
    assert not [room for room, below in BELOW.items() if "maps" in below]


def test_geometry_and_data_know_no_training():
    for room in ("geometry", "dicom", "formats", "data"):
        for path in (ROOT / "bundle" / room).glob("*.py"):
            assert not [module for module, _ in imports(path) if module.startswith(("torch.optim", "ignite"))], name(
                path
            )


def test_reading_dicom_needs_no_library_that_writes_it():
    program = "import sys, bundle.dicom; sys.exit('highdicom' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_rooms_hand_on_what_they_promise():
    for room in BELOW:
        module = __import__(f"bundle.{room}", fromlist=["__all__"])
        assert sorted(module.__all__) == list(module.__all__), room
        assert all(hasattr(module, public) for public in module.__all__), room


def test_no_file_of_a_room_has_the_name_of_what_it_hands_on():
    """A room that imports on demand would hand on the file instead, once that is imported."""
    for room in BELOW:
        files = {path.stem for path in (ROOT / "bundle" / room).glob("*.py")}
        assert not files & set(__import__(f"bundle.{room}", fromlist=["__all__"]).__all__), room


def test_names_of_the_package_that_texts_mention_exist():
    """In docstrings, comments, pages and configurations, where nothing else would notice that one has moved."""
    texts = [*MODULES, *(ROOT / "configs").rglob("*.yaml"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    named = {
        (found, name(path))
        for path in texts
        for found in re.findall(r"(?<![\w.])bundle(?:\.\w+)+", path.read_text())
        if not found.startswith("bundle.apps")  # which need environments of their own
    }
    assert len(named) > 100
    assert not [found for found in sorted(named) if locate(found[0]) is None]


def test_files_are_short():
    long = {name(path): len(path.read_text().splitlines()) for path in MODULES}
    assert not {path: lines for path, lines in long.items() if lines > 260}


def test_folders_are_small():
    files = Counter(path.parent for path in MODULES if path.name != "__init__.py")
    assert not {name(folder): count for folder, count in files.items() if count > 16}
