"""The documentation as a site: it builds without a warning, and loads nothing from elsewhere."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.helpers.site import anchor, outside
from tests.unit.test_docs import anchors


@pytest.mark.slow
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*.html")}
    for source in (ROOT / "docs").rglob("*.md"):
        name = source.relative_to(ROOT / "docs").with_suffix(".html").as_posix().replace("README", "index")
        assert name in pages
    assert {"project/CONTRIBUTING.html", "admin/messages.html"} <= pages
    assert outside(tmp_path / "site") == []


def test_what_comes_from_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="https://x.example/"><script src="https://cdn.example/a.js"></script>')
    (tmp_path / "a.css").write_text("@import url(//fonts.example/a.css);")
    assert len(outside(tmp_path)) == 2


@pytest.mark.parametrize("heading", ["What `check` says", "FHIR and HL7: tables", "4. By itself"])
def test_anchors_are_those_that_the_pages_use(heading: str) -> None:
    assert {anchor(heading, "-")} == anchors(f"# {heading}")
