"""How a gate ends: its checks become the verdict in the folder, and the folder's report says so."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from dicomnode.analysis.risk.bundle import Bundle
from training.evaluation.bar import GateBar
from training.release import verdict
from training.release.verdict import GateCheck, GateVerdict
from training.report import report


def conclude(
    folder: Path, checks: Sequence[GateCheck], bundle_sha256: str, before: Bundle | None, bar: GateBar, judged_on: str
) -> GateVerdict:
    """Write the verdict, and the report anew where there is one.

    Args:
        folder: of the run, or of the recalibration.
        checks: all of them.
        bundle_sha256: of the bundle that is judged; "" where it does not load.
        before: the bundle in service; None without one.
        bar: the thresholds.
        judged_on: on whom the bundle in service was judged; "" without one.
    """
    found = GateVerdict(
        passed=all(check.passed for check in checks),
        checks=tuple(checks),
        bundle_sha256=bundle_sha256,
        current_sha256="" if before is None else before.sha256,
        made_at=datetime.now(UTC).isoformat(),  # to the microsecond: each comparison is a consent of its own
        bar=bar.model_dump(),
        departures=bar.departures,
        judged_on=judged_on,
    )
    verdict.write(folder, found)
    if (folder / "report.html").is_file():
        report.write(folder)
    return found
