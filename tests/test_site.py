"""The static site of the pages and the reference."""

import re
import subprocess
import sys

import pytest
from workflow_fixtures import ROOT

pytestmark = pytest.mark.slow


def test_it_is_built_without_a_warning_and_names_what_users_call(tmp_path):
    """Links that lead nowhere, and docstrings that cannot be read, are warnings, and warnings are errors."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    for page, names in {
        "commands": ["register", "train", "check_data", "apply"],
        "python": ["bundle.api.register", "bundle.api.Registration"],
        "rooms": ["bundle.registration.AdaptationInferer", "bundle.meta.ReptileTrainer", "bundle.maps.MapNetwork"],
    }.items():
        text = (tmp_path / f"reference/{page}.html").read_text()
        assert [name for name in names if name not in text] == []
    fetched = {
        (page.name, found)
        for page in tmp_path.rglob("*.html")
        for found in re.findall(r'<(?:script|link|img)[^>]* (?:src|href)="((?:https?:)?//[^"]+)"', page.read_text())
    }
    assert not fetched, "a page works without a network"
