"""What a run says at its end: the figures and warnings of its report, for whoever looks at the terminal alone."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Closing:
    """Lines to print, and warnings, each one line."""

    lines: tuple[str, ...]
    warnings: tuple[str, ...]


def closing(folder: Path) -> Closing:
    """Return what a run folder has to say: the report's summary where it was evaluated, and every warning.

    Raises:
        UsageError: its evaluation cannot be read.
    """
    from training.report import report, run_facts  # noqa: PLC0415  (matplotlib: only where there is a report)

    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    if record["steps"].get("evaluation", {}).get("state") != "done":
        return Closing((), tuple(record["warnings"]))
    facts = run_facts.read(folder)
    return Closing(report.summary(facts), facts.warnings)
