"""The command that makes a registry of somebody's own table."""

import re
import shutil
from pathlib import Path
from typing import Annotated

import typer

from dicomnode.errors import UsageError

app = typer.Typer()

Role = Annotated[str, typer.Option(help="Column, where its name does not say.", show_default=False)]


@app.command(
    "import",
    epilog="Example: training import features.csv --patient PatientID --time Survival.time --time-unit days "
    '--event deadstatus.event --disease "non-small cell lung cancer" --source "NSCLC-Radiomics (TCIA)" --out registry',
)
def import_(
    features: Annotated[
        Path, typer.Argument(metavar="FEATURES.CSV", help="A row a scan; PyRadiomics' names as they are.")
    ],
    out: Annotated[Path, typer.Option(help="Registry folder; must be new or empty.")],
    disease: Annotated[str, typer.Option(help="Disease of the patients; goes into report and bundle.")] = "",
    source: Annotated[str, typer.Option(help="Where the data come from, and their licence.")] = "",
    site: Annotated[list[str] | None, typer.Option(help="Hospital; may be repeated.")] = None,
    period: Annotated[str, typer.Option(help="Years of the scans, where the table has no dates.")] = "",
    outcomes: Annotated[
        Path | None, typer.Option(help="CSV of outcomes, where they are not among the features.")
    ] = None,
    patient: Role = "",
    scan: Role = "",
    date: Role = "",
    time: Role = "",
    time_unit: Annotated[str, typer.Option(help="Of --time: days, weeks, months or years.")] = "",
    event: Role = "",
    columns: Annotated[
        Path | None,
        typer.Option(
            help="TOML: [covariates.NAME] with type, unit and range; features; ignore; site; keep_first_year."
        ),
    ] = None,
    region: Annotated[
        str, typer.Option(help="What was measured; `lungs`, `right`, `left` are the node's own.")
    ] = "roi",
    settings: Annotated[Path | None, typer.Option(help="PyRadiomics' parameter file of the features.")] = None,
    horizons: Annotated[str, typer.Option(help="Years to predict, for the run.toml that is written.")] = "1,3,5",
) -> None:
    """Make a registry of a table of measurements, and a run.toml beside it: `training run OUT/run.toml` comes next.

    Patients get pseudonyms and dates are shifted by the key OUT.key. What does not fit is refused with row and column.
    """
    from dicomnode.registry_format.provenance import Provenance
    from training.data.import_columns import read_asked
    from training.data.import_registry import import_table
    from training.run.start import begin

    years = _years(horizons)
    given = {"patient": patient, "scan": scan, "date": date, "time": time, "event": event}
    roles = {role: column for role, column in given.items() if column}
    asked = read_asked(columns, roles, time_unit, region)
    known = Provenance(disease.strip(), source.strip(), tuple(site or ()), period.strip())
    made = import_table(features, outcomes, out, asked, known, settings)
    try:
        toml, found = begin(out, made, years)
    except BaseException:
        shutil.rmtree(out)  # made by this call: the next one may begin anew
        raise
    typer.echo(f"{out}: {made.patients} patients, {made.scans} scans, {len(made.features)} measurements")
    if made.passed_over:
        shown = ", ".join(made.passed_over[:6]) + (" …" if len(made.passed_over) > 6 else "")
        typer.echo(f"columns passed over: {shown}")
    for line in found.lines:
        typer.echo(line)
    for warning in found.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"re-identification key, to be stored separately: {out}.key", err=True)
    typer.echo(f"next: training run {toml}")


def _years(text: str) -> tuple[int, ...]:
    from training.data.outcomes import LAST_HORIZON_YEARS

    if not re.fullmatch(r"\s*[0-9]+\s*(,\s*[0-9]+\s*)*", text):
        raise UsageError(f"--horizons {text!r}: give whole years with commas between them, such as 1,3,5")
    years = tuple(int(part) for part in text.split(","))
    if list(years) != sorted(set(years)) or not 1 <= years[0] <= years[-1] <= LAST_HORIZON_YEARS:
        raise UsageError(f"--horizons {text!r}: give each year once, rising, from 1 to {LAST_HORIZON_YEARS}")
    return years
