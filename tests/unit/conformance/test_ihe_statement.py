"""Every claim of the IHE integration statement names tests, and they are there."""

import ast
import re

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "ihe-integration-statement.md").read_text("utf-8")


def rows(heading: str) -> list[list[str]]:
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def is_test(name: str) -> bool:
    path, _, function = name.partition("::")
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return any(isinstance(node, ast.FunctionDef) and node.name == function for node in tree.body)


def test_every_claim_names_tests_that_are_there() -> None:
    claims = [*rows("Claims"), *rows("Transactions without an actor claimed")]
    assert len(claims) > 15
    for claim in claims:
        named = re.findall(r"`(tests/[^`]+)`", claim[-1])
        assert named, f"no test is named for {claim[:-1]}"
        assert all(map(is_test, named)), f"{claim[:-1]}: one of {named} is not there"


def test_every_claim_is_of_a_profile_that_is_listed() -> None:
    listed = {re.findall(r"\((.+)\)", row[0])[0] for row in rows("Profiles and actors")}
    assert {row[0].split()[0] for row in rows("Claims")} <= listed


def test_what_is_listed_as_not_claimed_has_no_claim() -> None:
    not_claimed = {re.findall(r"\((.+)\)", row[0])[0] for row in rows("Profiles and actors") if row[2].startswith("no")}
    assert not_claimed == {"CT"}
    assert not_claimed.isdisjoint(row[0].split()[0] for row in rows("Claims"))
