"""`dicomnode jobs list` and `show` as tables, with times of this machine's zone."""

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import typer

from dicomnode.cli.common import table

if TYPE_CHECKING:
    from dicomnode.config import Config
    from dicomnode.store.catalog.overview import Wanted

#: Between two looks of `--watch`, seconds.
_EVERY_S = 2.0
_WHOSE = ("patient_id", "accession_number", "study_date")
_TIMES = (
    "first_seen", "last_seen", "settled_at", "started_at", "analysed_at", "delivered_at", "changed_at",
    "next_attempt_at",
)  # fmt: skip


def show(config: "Config", wanted: "Wanted", *, identify: bool, watch: bool, as_json: bool) -> None:
    """Print the studies that are looked for; with `watch` again and again until Ctrl-C."""
    from rich.console import Console

    from dicomnode.operations.audited import note_command
    from dicomnode.operations.looking import Pages
    from dicomnode.service import signals

    if identify:
        note_command(config, "jobs list --identify")
    console = Console()
    with Pages(config) as pages:
        if not watch:
            _show_once(pages.rows(wanted, identify=identify), identify=identify, as_json=as_json, indent=2)
            return
        # A KeyboardInterrupt may come where Python drops it (in a finalizer), and nobody could end this.
        stop = signals.stopper(supervised=False)
        while not stop.is_set():
            rows = pages.rows(wanted, identify=identify)
            if not as_json:
                console.clear()
                typer.echo(time.strftime("%Y-%m-%d %H:%M:%S %Z"))
            # A line for each look, for a program that follows.
            _show_once(rows, identify=identify, as_json=as_json, indent=None)
            stop.wait(_EVERY_S)


def _show_once(rows: list[dict[str, Any]], *, identify: bool, as_json: bool, indent: int | None) -> None:
    if as_json:
        typer.echo(json.dumps(rows, indent=indent))
        sys.stdout.flush()
    else:
        _print(rows, identify=identify)


def _print(rows: list[dict[str, Any]], *, identify: bool) -> None:
    from dicomnode.operations.looking import local

    whose = _WHOSE if identify else ()
    heads = ["study", *(name.replace("_", " ") for name in whose), "gen.", "state", "images", "from", "last image"]
    heads += ["delivered", "next attempt", "reason", "flags"]
    table(
        heads,
        [
            [
                r["study_uid"],
                *(r[name] for name in whose),
                str(r["generation"]),
                r["state"],
                str(r["instances"]),
                r["sender"],
                local(r["last_seen"]),
                r["delivered"],
                local(r["next_attempt_at"]),
                r["reason"],
                r["flags"],
            ]
            for r in rows
        ],
        red=[r["state"] in ("failed", "held") for r in rows],
    )


def facts(shown: dict[str, Any]) -> list[list[str]]:
    """Return what `jobs show` says in a word, a row each."""
    from dicomnode.operations.looking import local

    plain = {k: v for k, v in shown.items() if not isinstance(v, list | dict)}
    return [[k, local(v) if k in _TIMES else str(v)] for k, v in plain.items() if v != ""]


def timeline(shown: dict[str, Any]) -> list[list[str]]:
    """Return the states that the study's jobs have come to, a row each."""
    from dicomnode.operations.looking import local

    return [[local(t["at"]), str(t["generation"]), t["state"], t["reason"]] for t in shown["timeline"]]
