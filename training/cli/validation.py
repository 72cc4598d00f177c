"""The commands for a finished bundle at another site: evaluate and recalibrate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicomnode.errors import UsageError
from training.cli.bars import bars

if TYPE_CHECKING:
    from training.validation.site import SiteTables

app = typer.Typer()

Registry = Annotated[Path, typer.Option(help="Registry folder of the site.")]
Outcomes = Annotated[Path, typer.Option(help="CSV: patient, death_date, last_contact_date, transplant_date.")]
Covariates = Annotated[Path | None, typer.Option(help="CSV: patient, date, name, value, unit.")]
Transplant = Annotated[str, typer.Option(help="How to treat a lung transplant: event, censor or ignore.")]
LeaveOut = Annotated[
    bool,
    typer.Option("--leave-out-training-patients", help="Leave out patients that a bundle was made with, not refuse."),
]
Bootstrap = Annotated[int, typer.Option(min=0, max=100_000, help="Patient-level bootstrap samples.")]
Threshold = Annotated[
    str, typer.Option(help="Risk at or above which a scan counts as high risk, 0 to 1; or one a horizon: 0.1,0.2,0.3.")
]
Out = Annotated[Path, typer.Option(help="Output folder; must be new or empty.")]


@app.command(
    epilog="Example: training evaluate weights/current --registry site-b --outcomes site-b/outcomes.csv --out look-b"
)
def evaluate(
    bundles: Annotated[
        list[Path], typer.Argument(metavar="BUNDLES", help="Bundle folders; the first is compared with the others.")
    ],
    registry: Registry,
    outcomes: Outcomes,
    out: Out,
    covariates: Covariates = None,
    transplant: Transplant = "censor",
    leave_out: LeaveOut = False,
    bootstrap: Bootstrap = 1000,
    threshold: Threshold = "0.2",
) -> None:
    """Validate finished bundles on a site's patients: asked as a node asks them, with the full report.

    Several bundles are judged on the same patients, with paired differences. Bundles of measured numbers alone need no
    volumes.
    """
    from training.validation.evaluate import EvaluationSettingsGiven, evaluate_bundles

    tables = _tables(registry, outcomes, covariates, transplant, leave_out=leave_out)
    options = EvaluationSettingsGiven(bootstrap, _threshold(threshold))
    with bars() as tell:
        page = evaluate_bundles(bundles, tables, out, options, tell)
    _say(out)
    typer.echo(page)


@app.command(
    epilog="Example: training recalibrate weights/current --registry site-b --outcomes site-b/outcomes.csv "
    '--site "Site B" --out recalibrated-b'
)
def recalibrate(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle folder.")],
    registry: Registry,
    outcomes: Outcomes,
    site: Annotated[str, typer.Option(help="Name of the site; it goes into the bundle and into the node's reports.")],
    out: Out,
    covariates: Covariates = None,
    transplant: Transplant = "censor",
    leave_out: LeaveOut = False,
    intercept_only: Annotated[
        bool, typer.Option("--intercept-only", help="Find the intercept alone; the slope stays 1.")
    ] = False,
    version: Annotated[str, typer.Option(help="Version of the new bundle (default: the old one with the site).")] = "",
    bootstrap: Bootstrap = 1000,
    threshold: Threshold = "0.2",
) -> None:
    """Recalibrate a bundle to a site: intercept and slope of its hazards, sealed as a new bundle in OUT/bundle.

    It is judged cross-fitted beside what it was. Into service it goes as a run's bundle does: `training compare OUT`,
    then `training promote OUT`.
    """
    from training.validation.evaluate import EvaluationSettingsGiven
    from training.validation.recalibrate import SiteAsked
    from training.validation.recalibrate import recalibrate as make

    tables = _tables(registry, outcomes, covariates, transplant, leave_out=leave_out)
    options = EvaluationSettingsGiven(bootstrap, _threshold(threshold))
    with bars() as tell:
        made, found = make(bundle, tables, SiteAsked(site, version, not intercept_only), out, options, tell)
    _say(out)
    typer.echo(f"{out / 'bundle'}: {made.name} {made.version}, sha256 {made.sha256}")
    typer.echo(f"intercept {found.intercept:+.4f}, slope {found.slope:.4f}, of every hazard's logit")
    typer.echo(f"next: training compare {out} weights/current")


def _tables(
    registry: Path, outcomes: Path, covariates: Path | None, transplant: str, *, leave_out: bool
) -> "SiteTables":
    from training.data.follow_up import Transplant
    from training.validation.site import SiteTables

    known: dict[str, Transplant] = {"event": "event", "censor": "censor", "ignore": "ignore"}
    if transplant not in known:
        raise UsageError(f"--transplant {transplant!r}: use {', '.join(known)}")
    return SiteTables(registry, outcomes, covariates, known[transplant], leave_out)


def _threshold(text: str) -> float | tuple[float, ...]:
    """Return one risk for all horizons, or one for each."""
    try:
        found = tuple(map(float, text.split(",")))
    except ValueError:
        found = ()
    if not found or not all(0 < one < 1 for one in found):
        raise UsageError(f"--threshold {text}: give a risk between 0 and 1, or one for each horizon, with commas")
    return found[0] if len(found) == 1 else found


def _say(out: Path) -> None:
    """Print the figures and the warnings of a report."""
    import json

    content = json.loads((out / "report.json").read_text("utf-8"))
    for warning in content["warnings"]:
        typer.echo(f"warning: {warning}", err=True)
    for line in content["summary"]:
        typer.echo(line)
