"""The table of formats (docs/admin/upgrade.md) says what the code has."""

import re

import pytest

from dicomnode.analysis.risk import manifest, reference, tabular
from dicomnode.operations import backup_format
from dicomnode.registry_format import description
from dicomnode.store.catalog import migrate
from dicomnode.workflows import queue
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "admin" / "upgrade.md").read_text("utf-8")
NUMBERS = {
    "catalogue": migrate.HEAD,
    "queue": queue.WORKFLOW_VERSION,
    "bundle": str(manifest.FORMAT),
    "tabular model": str(tabular.FORMAT),
    "reference distribution": str(reference.FORMAT),
    "registry": str(description.FORMAT),
    "backup": str(backup_format.FORMAT),
}


def rows(heading: str) -> dict[str, list[str]]:
    """The rows of the table that begins with this heading, by their first cell."""
    table = PAGE.partition(f"\n| {heading} |")[2].partition("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    return {first: rest for first, *rest in cells}


@pytest.mark.parametrize("name", NUMBERS)
def test_the_page_has_the_number_that_the_code_has(name: str) -> None:
    found = rows("format")[name][0]
    assert found == NUMBERS[name], f"docs/admin/upgrade.md: {name} is {NUMBERS[name]} now, in both tables"


def test_no_format_is_left_out() -> None:
    assert set(rows("format")) == set(NUMBERS) | {"findings", "configuration"}


def test_the_last_row_is_this_version_s() -> None:
    *_, newest = rows("release").values()
    assert newest == [NUMBERS[name] for name in ("catalogue", "queue", "bundle", "registry")]


def test_older_registries_are_read_as_the_page_says() -> None:
    assert set(map(int, re.findall(r"\d", rows("format")["registry"][2]))) == set(description._READABLE)
