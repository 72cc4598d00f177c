"""Whatever the node says leads to its paragraph in docs/admin/troubleshooting.md."""

import ast
import re

import pytest

from dicomnode import errors
from dicomnode.reception import c_store
from tests.conftest import ROOT
from tests.helpers import messages
from tests.unit.test_docs import anchors, section

PAGE = (ROOT / "docs" / messages.TROUBLESHOOTING).read_text("utf-8")
#: Parts of the program whose messages end a command, and need no paragraph but that of exit statuses.
ENDING_A_COMMAND = {"cli", "conformance", "demo", "operations", "retry", "errors", "limits", "logs", "metrics"}


def first_column(text: str) -> set[str]:
    """What stands between backticks in the first cells of a table."""
    return {word for row in re.findall(r"^\| (.*?) \|", text, re.MULTILINE) for word in re.findall(r"`([^`]+)`", row)}


def begins(key: str) -> str:
    """A key without what is filled in: «rule …» is «rule», «dead-letters-…» is «dead-letters»."""
    return key.partition("…")[0].strip(" -.@")


def test_every_class_of_errors_has_its_row_with_its_status() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d) \|", section(PAGE, "A command ends with an error"), re.MULTILINE))
    waiting, known = [errors.DicomnodeError], {}
    while waiting:
        error = waiting.pop()
        if error.__module__ == errors.__name__:
            known[error.__name__] = str(error.exit_code)
            waiting += error.__subclasses__()
    assert rows == known


def names_in_checks() -> set[str]:
    """What checks are called by a variable: `what = "shadow_bundle"`, `_port(…, "tls_port", …)`."""
    tree = ast.parse((ROOT / "dicomnode" / "operations" / "checks.py").read_text("utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "what":
            found.add(messages.template(node.value))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "_port":
            found.add(messages.template(node.args[2]))
    return found


def test_every_check_has_its_row() -> None:
    keys = messages.keys("dicomnode.operations.checks", "CheckResult") | names_in_checks()
    wanted = {begins(key) for key in keys} - {""}
    rows = first_column(section(PAGE, "What `check` says"))
    missing = {key for key in wanted if not any(row == key or row.startswith((f"{key} ", f"{key}.")) for row in rows)}
    assert len(wanted) > 12 and not missing


def test_every_warning_of_what_is_open_has_its_row() -> None:
    keys = messages.keys("dicomnode.operations.exposure", "Exposure")
    text = PAGE.partition("### What is left open")[2].partition("\n## ")[0]
    assert keys and keys - first_column(text) == set()


def test_every_alert_has_its_row() -> None:
    keys = {begins(key) for key in messages.keys("dicomnode.service.conditions", "HealthCondition")} - {""}
    rows = first_column(section(PAGE, "Alerts"))
    assert {"disk", "dead-letters", "drift"} <= keys <= rows
    # Those whose key is made of a name are said in words, or as the variable in the code is called.
    assert {"database", "refused", "audit", "certificate"} <= rows
    assert "process does not start" in PAGE and "peer away" in PAGE


def test_every_status_of_c_store_has_its_row() -> None:
    rows = re.findall(r"^\| (0x[0-9A-F]{4}) \|", section(PAGE, "Nothing comes in"), re.MULTILINE)
    ours = {c_store.OUT_OF_RESOURCES, c_store.CANNOT_UNDERSTAND, c_store.UID_TAKEN}
    assert {f"0x{status:04X}" for status in ours} <= set(rows)


@pytest.fixture(scope="module")
def said() -> list[messages.Message]:
    return messages.messages()


def test_every_message_leads_to_a_paragraph_that_is_there(said: list[messages.Message]) -> None:
    assert len(said) > 500
    assert {one.paragraph for one in said} <= anchors(PAGE)
    assert set(messages.PARAGRAPHS.values()) <= anchors(PAGE)


def test_every_part_of_the_program_has_a_paragraph_of_its_own(said: list[messages.Message]) -> None:
    parts = {one.module.split(".")[1] for one in said if one.module.startswith("dicomnode.")}
    own = {name.split(".")[1] for name in messages.PARAGRAPHS if name.startswith("dicomnode.")}
    assert parts - own <= ENDING_A_COMMAND, "say in tests/helpers/messages.py where these lead"


def test_messages_are_found_as_they_stand() -> None:
    texts = {(one.text, one.said) for one in messages.messages()}
    assert any(
        text.startswith("rejected … at …: not in node.callers") and said == "log, warning" for text, said in texts
    )
    assert any(said == "ConfigurationError" for _, said in texts)


def test_every_symptom_leads_to_a_section() -> None:
    first = PAGE.partition("\n## ")[0]
    led = set(re.findall(r"\]\(#([^)]+)\)", first))
    sections = anchors("\n".join(re.findall(r"^## .+$", PAGE, re.MULTILINE)))
    assert len(led) > 8 and led <= sections
