"""`dicomnode worklist`."""

import json
import time
from contextlib import closing
from datetime import datetime
from typing import Annotated

import typer

from dicomnode.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption, load, table
from dicomnode.errors import UsageError

app = typer.Typer()


@app.command("worklist")
def worklist(
    config_file: ConfigOption = DEFAULT_CONFIG,
    day: Annotated[
        datetime | None,
        typer.Option(
            "--date",
            formats=["%Y-%m-%d"],
            metavar="YYYY-MM-DD",
            help="Day to list. Default: today in the RIS's time zone.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List a day's worklist orders.

    They are shown as the running node last received them, with its studies of each patient. The output contains
    patient data.

    Example: dicomnode worklist --date 2026-12-31 --json
    """
    from dicomnode.context import worklist as orders
    from dicomnode.store.catalog.catalog import Catalog

    config = load(config_file)
    if config.worklist is None:
        raise UsageError(f"{config_file} has no [worklist] table: see ae_config.toml")
    if not config.storage.database_url and not config.storage.state.is_dir():
        raise UsageError(f"{config.storage.state}: the node has never run with this configuration")
    with closing(Catalog.open(config.catalog_url, config.storage.state)) as catalog:
        asked = day.date() if day else orders.today(config.worklist, time.time())
        rows = list(orders.overview(catalog, asked))
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    if not rows:
        typer.echo(
            f"no orders for {asked}: the RIS has none, has not answered (test with `dicomnode check`), or the node "
            "does not query that day (worklist.days_before, days_after)"
        )
        return
    shown = ("scheduled", "patient_name", "patient_id", "accession_number", "procedure", "station", "state")
    table(
        [
            "scheduled",
            "patient",
            "ID",
            "accession",
            "procedure",
            "station",
            "study",
            "other studies",
            "last seen",
        ],
        [[*(str(r[k]) for k in shown), _others(r["others"]), str(r["seen_at"])] for r in rows],
    )


def _others(others: object) -> str:
    assert isinstance(others, list)
    return ", ".join(f"…{o['study_uid'][-8:]} {o['state']}" for o in others)
