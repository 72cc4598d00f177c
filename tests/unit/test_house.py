"""The layout of the packages: every module has a layer, and hardly any lies loose at the top."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import ROOT

#: `__init__`, `__main__`, and what stands below every layer.
MOST = 8


@pytest.mark.parametrize("package", ["dicomnode", "training"])
def test_few_modules_lie_loose(package: str) -> None:
    loose = sorted(path.name for path in (ROOT / package).glob("*.py"))
    assert len(loose) <= MOST, f"{loose}: put a new module into the package that it belongs to"


def test_the_contracts_know_every_module() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    exhaustive = {c for one in contracts if one.get("exhaustive") for c in one["containers"]}
    assert exhaustive >= {"dicomnode", "dicomnode.analysis", "training"}


def test_a_new_loose_module_breaks_the_contract(tmp_path: Path) -> None:
    """import-linter on a copy of the packages with one module more."""
    for name in ("dicomnode", "training"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    (tmp_path / "dicomnode" / "loose.py").write_text('"""Without a layer."""\n')
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "dicomnode.loose" in done.stdout
