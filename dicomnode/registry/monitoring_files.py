"""`dicomnode registry monitor`: the look, its files, and what others read of the last one.

`registry.folder`/monitor holds a page and a JSON file for each month, and latest.json, from which the node's alerts and
/metrics take what they tell: neither goes through the registry.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from dicomnode.analysis.risk import reference
from dicomnode.config import Config
from dicomnode.errors import UsageError
from dicomnode.files import sha256_of, write_whole
from dicomnode.registry.latest_look import FOLDER, LATEST
from dicomnode.registry.monitor import ModelMonitor, ServedBundle, look, month_of
from dicomnode.registry.monitor_page import page
from dicomnode.store.catalog.registry import RegistryRows


@dataclass(frozen=True)
class MonitorFiles:
    """What was found, and where it was written."""

    found: ModelMonitor
    page: Path
    json: Path


def served(config: Config) -> ServedBundle:
    """Return the bundle that the configuration names. Raises BundleError: its reference is damaged."""
    if not config.analysis.bundle:
        return ServedBundle("", "", None)
    folder = (config.analysis.weights / config.analysis.bundle).resolve()
    sha256 = sha256_of(folder / "model.toml") if (folder / "model.toml").is_file() else ""
    return ServedBundle(config.analysis.bundle, sha256, reference.of_folder(folder))


def monitor(config: Config, rows: RegistryRows, now: float, month: str = "", out: Path | None = None) -> MonitorFiles:
    """Look, and write page and JSON of a month; of the present one also what alerts and metrics read.

    Args:
        config: of the node.
        rows: the registry.
        now: UTC seconds since 1970.
        month: "2026-11"; "" for the present one.
        out: folder of the files; None for that in `registry.folder`.

    Raises:
        UsageError: the month is none, or has not begun.
        BundleError: the bundle's reference is damaged.
        SpoolError: the database failed.
    """
    present = datetime.fromtimestamp(now, UTC).strftime("%Y-%m")
    month = month or present
    try:
        begins, _ = month_of(month)
    except ValueError:
        raise UsageError(f"--month {month!r}: write a year and a month, such as {present}") from None
    if begins > now:
        raise UsageError(f"--month {month} has not begun: the present one is {present}")
    month = datetime.fromtimestamp(begins, UTC).date().isoformat()[:7]
    bundle = served(config)
    found = look(bundle, rows.registry_scans(), rows.registry_risks(), rows.registry_outcomes(), month, now)
    own = config.registry.folder / FOLDER
    folder = own if out is None else out
    files = MonitorFiles(found, folder / f"{month}.html", folder / f"{month}.json")
    text = as_json(found)
    write_whole(files.page, page(found, bundle.reference))
    write_whole(files.json, text)
    if month == present:
        write_whole(own / LATEST, text)
    return files


def as_json(found: ModelMonitor) -> str:
    """Return what was found as JSON."""
    return json.dumps(asdict(found), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
