"""docs/admin/hospital-cases.md says no more than the tests show."""

import re

from tests.conftest import ROOT

ROWS = [
    [cell.strip() for cell in line.strip("|\n").split("|")]
    for line in (ROOT / "docs" / "admin" / "hospital-cases.md").read_text("utf-8").splitlines()
    if re.match(r"\| \d", line)
]


def test_every_case_has_its_row() -> None:
    assert [int(row[0]) for row in ROWS] == list(range(1, 26))
    assert all(len(row) == 5 and row[1] and row[2] for row in ROWS)


def test_every_named_test_exists() -> None:
    for row in ROWS:
        named = re.findall(r"`(tests/[^:`]+)::([^`]+)`", row[3])
        assert named or row[4], f"case {row[0]} has neither a test nor a place where it will come"
        for path, name in named:
            source = (ROOT / path).read_text("utf-8")
            wanted = "test_" if name == "*" else f"{name}("
            assert any(line.startswith(f"def {wanted}") for line in source.splitlines()), f"{path} has no {name}"


def test_every_test_with_a_number_is_named() -> None:
    said = " ".join(row[3] for row in ROWS)
    for path in (ROOT / "tests").rglob("test_*.py"):
        for name in re.findall(r"^def (test_case_\d\d_\w+)", path.read_text("utf-8"), re.MULTILINE):
            assert name in said, f"docs/admin/hospital-cases.md does not name {name}"
