"""docs/security.md says no more than the tests show."""

import re

from tests.conftest import ROOT

ROWS = [
    [cell.strip() for cell in line.strip("|\n").split("|")]
    for line in (ROOT / "docs" / "security.md").read_text("utf-8").splitlines()
    if re.match(r"\| \d", line)
]


def test_every_threat_has_its_row_and_its_test() -> None:
    assert [int(row[0]) for row in ROWS] == list(range(1, len(ROWS) + 1))
    assert all(len(row) == 4 and all(row) for row in ROWS)


def test_every_named_test_exists() -> None:
    for row in ROWS:
        named = re.findall(r"`(tests/[^:`]+)::([^`]+)`", row[3])
        assert named, f"threat {row[0]} names no test"
        for path, name in named:
            lines = (ROOT / path).read_text("utf-8").splitlines()
            wanted = "def test_" if name == "*" else f"def {name}("
            assert any(line.startswith(wanted) for line in lines), f"{path} has no {name}"


def test_every_attack_on_the_port_is_named() -> None:
    said = " ".join(row[3] for row in ROWS)
    told = (ROOT / "tests" / "faults" / "test_hostile_peers.py").read_text("utf-8")
    # That a good UID is taken is no threat; the lobby's row names the third kind of waiting connection; how an echo is
    # judged has a test of its own.
    others = {
        "test_leading_zeros_are_taken",
        "test_callers_that_are_rejected_and_stay_do_not_fill_the_node",
        "test_only_the_load_of_others_excuses_an_echo",
    }
    for name in set(re.findall(r"^def (test_\w+)", told, re.MULTILINE)) - others:
        assert name in said, f"docs/security.md does not name {name}"
