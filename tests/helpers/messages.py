"""Every message of the node, as it stands in the code, and the paragraph of the documentation that it leads to.

    python -m tests.helpers.messages    prints the page that `make site` shows

Messages with a key (a check, a warning, an alert, a class of errors, a flag) have a row in the documentation. All
others lead to the paragraph of the part of the program that says them.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.prerequisites import ROOT

TROUBLESHOOTING = "admin/troubleshooting.md"
#: Package or module -> heading of the page on troubleshooting. The longest that fits counts.
PARAGRAPHS = {
    "dicomnode": "a-command-ends-with-an-error",
    "dicomnode.analysis": "refused-studies-and-flags",
    "dicomnode.analysis.risk": "bundles-and-weights",
    "dicomnode.audit": "alerts",
    "dicomnode.config": "configuration",
    "dicomnode.console": "console-monitoring-notifications",
    "dicomnode.context": "orders-and-priors-are-missing",
    "dicomnode.dicomweb": "console-monitoring-notifications",
    "dicomnode.downloads": "bundles-and-weights",
    "dicomnode.files": "disk-and-database",
    "dicomnode.models": "bundles-and-weights",
    "dicomnode.monitoring": "console-monitoring-notifications",
    "dicomnode.network": "network-in-detail",
    "dicomnode.network.stow": "results-do-not-arrive",
    "dicomnode.network.fhir": "results-do-not-arrive",
    "dicomnode.network.mllp": "results-do-not-arrive",
    "dicomnode.network.tls": "nothing-comes-in",
    "dicomnode.network.find": "orders-and-priors-are-missing",
    "dicomnode.network.association": "results-do-not-arrive",
    "dicomnode.operations.backup": "disk-and-database",
    "dicomnode.operations.restore": "disk-and-database",
    "dicomnode.operations.checks": "what-check-says",
    "dicomnode.operations.exposure": "what-is-left-open",
    "dicomnode.outbound": "results-do-not-arrive",
    "dicomnode.outbound.notify": "console-monitoring-notifications",
    "dicomnode.reception": "nothing-comes-in",
    "dicomnode.registry": "registry-and-training",
    "dicomnode.registry_format": "registry-and-training",
    "dicomnode.report": "refused-studies-and-flags",
    "dicomnode.results": "refused-studies-and-flags",
    "dicomnode.routing": "configuration",
    "dicomnode.service": "the-node-does-not-start",
    "dicomnode.service.alerts": "alerts",
    "dicomnode.service.conditions": "alerts",
    "dicomnode.store": "disk-and-database",
    "dicomnode.workflows": "a-study-stays-where-it-is",
    "dicomnode.workflows.deliver": "results-do-not-arrive",
    "training": "registry-and-training",
    "training.release": "registry-and-training",
}
_LOUD = ("warning", "error", "critical", "exception")


@dataclass(frozen=True)
class Message:
    """What a person may read.

    Attributes:
        text: with … where a value stands.
        said: the class of the error, or «log, warning» and the like.
        module: that says it.
    """

    text: str
    said: str
    module: str

    @property
    def paragraph(self) -> str:
        """The heading of the page that it leads to."""
        parts = self.module.split(".")
        names = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
        return next(PARAGRAPHS[name] for name in names if name in PARAGRAPHS)


def messages() -> list[Message]:
    """Return all messages: of errors that are raised, of the log from warnings on, of checks, warnings and alerts."""
    found = {
        one for top in ("dicomnode", "training") for path in (ROOT / top).rglob("*.py") for one in _of_module(path)
    }
    return sorted(found, key=lambda one: (one.paragraph, one.text.lower(), one.module))


def _of_module(path: Path) -> Iterator[Message]:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            said = ast.unparse(node.exc.func)
            if said.endswith("Error") and not said.startswith(("Value", "Type", "Key", "NotImplemented", "Assertion")):
                # Of a refusal the first argument is its code, which has its own row.
                yield from _texts(node.exc.args[-1:], said, module)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _LOUD:
            if ast.unparse(node.func.value) in ("log", "self._log", "logger"):
                yield from _texts(node.args[:1], f"log, {node.func.attr}", module)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
            "CheckResult",
            "Exposure",
            "HealthCondition",
        ):
            yield from _texts(node.args[-1:], ast.unparse(node.func), module)


def _texts(given: list[ast.expr], said: str, module: str) -> Iterator[Message]:
    for one in given:
        for branch in (one.body, one.orelse) if isinstance(one, ast.IfExp) else (one,):
            text = template(branch)
            if len(text.replace("…", "").split()) > 1:
                yield Message(text, said, module)


def template(node: ast.expr) -> str:
    """Return a string of the code with … for what is filled in; "" for what is no string."""
    if isinstance(node, ast.Constant):
        text = node.value if isinstance(node.value, str) else ""
        return " ".join(_without_placeholders(text).split())
    if isinstance(node, ast.JoinedStr):
        parts = (str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values)
        return " ".join("".join(parts).split())
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return f"{template(node.left)}{template(node.right)}"
    return ""


def _without_placeholders(text: str) -> str:
    for one in ("%s", "%d", "%r", "%.0f", "%.1f", "%g"):
        text = text.replace(one, "…")
    return text


def keys(module: str, name: str, position: int = 0) -> set[str]:
    """Return the keys given to a class: `CheckResult("disk", …)` gives «disk»; of f-strings with … for values."""
    path = ROOT / Path(*module.split(".")).with_suffix(".py")
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            found.add(template(node.args[position]))
    return found


def page() -> str:
    """Return the list of all messages as a page of the documentation."""
    lines = ["# All messages", "", "Made from the code by `make site`. … stands for a value.", ""]
    heading = ""
    for one in messages():
        if one.paragraph != heading:
            heading = one.paragraph
            lines += ["", f"## {heading.replace('-', ' ').capitalize()}", ""]
            lines += [f"[What to do](troubleshooting.md#{heading})", "", "| message | said by |", "|---|---|"]
        text = (
            one.text.replace("|", "\\|")
            .replace("<", "&lt;")
            .replace("*", "\\*")
            .replace("_", "\\_")
            .replace("[", "\\[")
        )
        lines.append(f"| {text} | {one.said} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
