"""The wheel, installed where no repository is: the commands find all that they need."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow
#: What a wheel is made from. A copy of it, because setuptools builds in the folder of the sources.
SOURCES = (
    "dicomnode",
    "training",
    "weights",
    "docs",
    "ae_config.toml",
    "pyproject.toml",
    "setup.py",
    "README.md",
    "LICENSE",
)

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`installed("dicomnode", "--help")`: a command of an environment that has the wheel and what it depends on."""
    folder = tmp_path_factory.mktemp("wheel")
    sources, environment, elsewhere = folder / "sources", folder / "venv", folder / "elsewhere"
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / name, sources / name)
    elsewhere.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV", "PYTEST"))}

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        program = environment / "bin" / command[0]
        return subprocess.run(
            [program, *command[1:]], cwd=elsewhere, env=clean, capture_output=True, text=True, timeout=540, check=False
        )

    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, sources]
    done = subprocess.run(build, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    venv.create(environment)
    (own,) = environment.glob("lib/python*/site-packages")
    # The libraries are those of the tests' environment, added behind the wheel's own folder; the .pth file of its
    # editable install does not work there, since Python reads .pth files of site folders alone.
    (own / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [*pip, "--python", environment / "bin" / "python", "install", "--quiet", "--no-deps", "--no-index", wheel]
    done = subprocess.run(install, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = run("python", "-c", "import dicomnode, training; print(dicomnode.__file__, training.__file__)")
    assert found.returncode == 0, found.stderr
    assert all(Path(path).is_relative_to(own) for path in found.stdout.split()), found.stdout
    return run


@pytest.mark.parametrize("command", ["dicomnode", "training"])
def test_help(installed: Run, command: str) -> None:
    done = installed(command, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_analyze_without_a_configuration(installed: Run, data: Path, tmp_path: Path) -> None:
    done = installed("dicomnode", "analyze", data / "chest_tiny_cip" / "ct-64Dicom", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made >= {"findings.json", "seg.dcm", "measurements.dcm", "risk.dcm", "summary.dcm", "pdf.dcm", "overlay.png"}


def test_the_demo(installed: Run, data: Path, tmp_path: Path) -> None:
    """Node, migrations, queue, worker, PACS: all from the wheel. With a small study: `test_demo` makes one."""
    small = data / "chest_tiny_cip" / "ct-64Dicom"
    done = installed("dicomnode", "demo", "--out", tmp_path / "demo-out", "--input", small)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The PACS holds all expected objects." in done.stdout


def test_who_has_no_configuration_is_told_where_the_example_lies(installed: Run) -> None:
    done = installed("dicomnode", "check")
    assert done.returncode == 2
    example = done.stderr.partition("copy ")[2].partition(" and adapt")[0]
    assert Path(example).is_file() and example.endswith("ae_config.toml")
