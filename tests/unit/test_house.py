"""The layout of the packages: every module has a layer, and hardly any lies loose at the top."""

import ast
import re
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


def test_no_class_has_the_name_of_another() -> None:
    """In a traceback, a search or an import line a name alone has to say which class it is."""
    places: dict[str, list[str]] = {}
    for path in [*(ROOT / "dicomnode").rglob("*.py"), *(ROOT / "training").rglob("*.py")]:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_nothing_that_is_made_is_committed() -> None:
    """A link `.venv` to a developer's own folder would be every clone's environment."""
    listed = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "", "git rm --cached them"
    # As a folder, and as a link to one: a pattern that ends in / does not mean the latter.
    patterns = (ROOT / ".gitignore").read_text("utf-8").split()
    assert {".venv", "/build"} <= set(patterns)


def test_make_installs_every_peer_that_a_test_asks_for() -> None:
    """With CI=true a machine that has nothing would fail. dcmqi is a Python package; every Linux has util-linux."""
    makefile = set(re.findall(r"[\w.-]+", (ROOT / "Makefile").read_text("utf-8")))
    asked = {
        package
        for path in (ROOT / "tests").rglob("*.py")
        for package in re.findall(r'\b(?:peer|program)\("[^"]+", "([^"]+)"\)', path.read_text("utf-8"))
    }
    assert {"curl", "orthanc"} <= asked
    assert asked - {"dcmqi", "util-linux"} <= makefile


def test_the_configuration_is_called_config() -> None:
    for path in (ROOT / "dicomnode").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.arg) and node.annotation is not None and "Config" in ast.unparse(node.annotation):
                of_the_file = ast.unparse(node.annotation).strip("'\"").removeprefix("config.") == "Config"
                assert not of_the_file or node.arg == "config", f"{path}:{node.lineno}: call it config"


#: Who reads files with pydicom: the reader of headers, pixels, objects on their way, identities for the catalogue.
READERS = {
    "analysis/series/multiframe.py", "analysis/series/parts.py", "analysis/volume/decode.py", "conformance/sample.py",
    "network/association.py", "network/find.py", "outbound/destinations/reports.py", "outbound/notify/sending.py",
    "outbound/procedure_steps/progress.py",
    "dicomweb/files.py", "reception/query_retrieve_scp.py", "reception/rejection_notes.py", "store/catalog/audit.py",
    "store/differences.py", "store/patient_key.py", "store/sameness.py", "workflows/rejections.py",
}  # fmt: skip


def test_headers_are_read_in_one_place() -> None:
    """What comes by another door meets raw values, and crashes on the first odd one (`analysis/series/values.py`)."""
    package = ROOT / "dicomnode"
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if any(
            isinstance(n, ast.Name | ast.Attribute) and _name(n) == "dcmread"
            for n in ast.walk(ast.parse(path.read_text("utf-8")))
        )
    }
    assert found == READERS


def _name(node: ast.Name | ast.Attribute) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr


#: Processes that hold the catalogue, or the queue, for as long as they live, and close it as they end.
HOLDERS = {
    "console/site.py", "monitoring/server.py", "reception/process.py", "service/audit.py", "service/processes.py",
    "service/supervisor.py", "workflows/analyst.py",
}  # fmt: skip


def test_who_opens_a_database_closes_it() -> None:
    """Whatever fails in between: `closing(…)`, a close on the spot, or a function that returns what it has opened."""
    package = ROOT / "dicomnode"
    left = [
        f"{path.relative_to(package)}:{line}"
        for path in sorted(package.rglob("*.py"))
        if str(path.relative_to(package)) not in HOLDERS
        for line in unclosed(ast.parse(path.read_text("utf-8")))
    ]
    assert left == []


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("catalog = Catalog.open(url)", [1]),
        ("catalog, queue = open_catalog(config), Queue(config)", [1, 1]),
        ("with closing(Catalog.reading(url)) as catalog, closing(Queue(config)) as queue:\n    pass", []),
        ("catalog = Catalog.open(url)\nwith closing(catalog):\n    pass", []),
        ("Catalog.open(url).close()", []),
        ("def opened():\n    return Catalog.open(url)", []),
    ],
)
def test_what_is_left_open_is_found(code: str, lines: list[int]) -> None:
    assert unclosed(ast.parse(code)) == lines


def unclosed(tree: ast.Module) -> list[int]:
    """The lines that open the catalogue or the queue, and leave it to others to close it."""
    opening = {"Catalog.open", "Catalog.reading", "open_catalog", "jobs.open_catalog", "Queue"}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    closed = {ast.unparse(call.args[0]) for call in calls if ast.unparse(call.func) == "closing"}
    fine = {id(call.args[0]) for call in calls if ast.unparse(call.func) == "closing"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "close":
            fine.add(id(node.value))
        if isinstance(node, ast.Return) and node.value is not None:
            fine.add(id(node.value))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in closed:
            fine.add(id(node.value))
    return sorted(call.lineno for call in calls if ast.unparse(call.func) in opening and id(call) not in fine)
