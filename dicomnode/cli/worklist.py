"""`dicomnode worklist`."""

import json
import time

import typer

from dicomnode.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption, load, table
from dicomnode.errors import UsageError

app = typer.Typer()


@app.command("worklist")
def worklist(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """List today's orders as the running node last saw them, and what it holds of each patient.

    This shows patient data.

    Example: dicomnode worklist --json
    """
    from dicomnode import worklist as orders
    from dicomnode.intake.catalog import Catalog

    settings = load(config)
    if settings.worklist is None:
        raise UsageError(f"{config} has no [worklist]: see ae_config.toml")
    if not settings.storage.database_url and not settings.storage.state.is_dir():
        raise UsageError(f"{settings.storage.state}: the node has not run with this configuration yet")
    catalog = Catalog.open(settings.catalog_url)
    try:
        rows = list(orders.overview(settings, catalog, time.time()))
    finally:
        catalog.close()
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    if not rows:
        typer.echo("no orders of today are known: the RIS has none, or has not answered (`dicomnode check` asks it)")
        return
    shown = ("scheduled", "patient_name", "patient_id", "accession_number", "procedure", "station", "state")
    table(
        ["scheduled", "patient", "ID", "accession", "procedure", "station", "study", "other studies here", "last seen"],
        [[*(str(r[k]) for k in shown), _others(r["others"]), str(r["seen_at"])] for r in rows],
    )


def _others(others: object) -> str:
    assert isinstance(others, list)
    return ", ".join(f"…{o['study_uid'][-8:]} {o['state']}" for o in others)
