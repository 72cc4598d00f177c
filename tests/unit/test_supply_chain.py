"""What comes with a node: its bill of materials, and under which licences it runs."""

import json
import re
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT
from tests.helpers import sbom
from tests.helpers.runtime_packages import closure, is_permissive, licences, requirements

#: LGPL: used unchanged, as packages of their own that anyone may replace (docs/developer/decisions/libraries.md).
LGPL = {"fastremap", "fill-voids", "psycopg", "psycopg-binary"}


def test_what_runs_is_permissive() -> None:
    odd = {name: licences(package) for name, package in closure(requirements()).items() if not is_permissive(package)}
    assert set(odd) == LGPL, odd
    for name in LGPL:
        assert all(re.match(r"LGPL-3\.0", one) for choice in odd[name] for one in choice), odd[name]


@pytest.mark.parametrize(
    ("metadata", "good"),
    [
        ("License-Expression: MIT", True),
        ("License-Expression: GPL-3.0-or-later", False),
        ("License-Expression: MIT AND GPL-2.0-only", False),
        ("License-Expression: (Apache-2.0 OR GPL-2.0-only) AND BSD-3-Clause", True),
        ("License-Expression: AGPL-3.0", False),
        ("Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)", False),
        ("Classifier: License :: OSI Approved :: BSD License", True),
        ("License: GPL", False),
        ("License: MIT", True),
        ("License: Proprietary", False),
        ("Summary: says nothing of its licence", False),
    ],
)
def test_licences_are_told_apart(tmp_path: Path, metadata: str, good: bool) -> None:
    (tmp_path / "METADATA").write_text(f"Metadata-Version: 2.4\nName: x\nVersion: 1\n{metadata}\n")
    assert is_permissive(PathDistribution(tmp_path)) == good


def test_a_tool_of_the_tests_is_not_of_what_runs() -> None:
    running = closure(requirements())
    assert {"torch", "pydicom", "cryptography", "lifelines", "psycopg"} <= running.keys()
    assert not {"pytest", "scikit-survival", "atheris", "cyclonedx-bom", "mypy"} & running.keys()
    assert not is_permissive(closure([Requirement("scikit-survival")])["scikit-survival"])  # GPL: the test would fail


@pytest.fixture(scope="module")
def bill() -> dict[str, object]:
    return sbom.bill()


def test_the_bill_is_valid_and_complete(bill: dict[str, object]) -> None:
    error = JsonStrictValidator(SchemaVersion.from_version(sbom.SPECIFICATION)).validate_str(json.dumps(bill))
    assert error is None, error
    components = bill["components"]
    assert isinstance(components, list)
    assert {canonicalize_name(c["name"]) for c in components} == closure(requirements()).keys()
    assert all(c["version"] and c["purl"].startswith("pkg:pypi/") for c in components)


def test_the_bill_is_the_same_tomorrow(bill: dict[str, object]) -> None:
    text = json.dumps(bill)
    assert "serialNumber" not in bill
    assert "timestamp" not in bill["metadata"]  # type: ignore[operator]
    assert str(ROOT) not in text


def test_what_runs_is_pinned(bill: dict[str, object]) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    pinned = {canonicalize_name(name): version for name, version in pins.items()}
    components = bill["components"]
    assert isinstance(components, list)
    for one in components:
        version = one["version"].partition("+")[0]  # torch tells its build: 2.13.0+cpu
        assert pinned.get(canonicalize_name(one["name"])) == version, one["name"]
