"""The commands between a finished run and the node: compare, promote and rollback."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from training.cli.bars import bars

app = typer.Typer()

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run, or of `training recalibrate`.")]


@app.command(epilog="Example: training compare run/ weights/current")
def compare(
    run: Run,
    current: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="The bundle in service; omit it if there is none.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="The node's weights folder, whose gate.toml sets the bar (default: the folder of BUNDLE)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Decide whether a run's bundle may replace the one in service, with the reasons (gate.json in the run).

    Exit status: 0 it may, 3 it may not.
    """
    from training.release import gate
    from training.validation import site_gate

    judge = site_gate.compare if site_gate.is_one(run) else gate.compare
    with bars() as progress:
        verdict = judge(run, current, progress, weights)
    if as_json:
        typer.echo(json.dumps(asdict(verdict), indent=2))
    else:
        for check in verdict.checks:
            typer.echo(f"{'passed' if check.passed else 'FAILED'}  {check.name}: {check.text}")
        typer.echo("gate passed" if verdict.passed else "gate failed")
    raise typer.Exit(0 if verdict.passed else 3)


@app.command(epilog="Example: training promote run/ --to weights/")
def promote(run: Run, to: Annotated[Path, typer.Option(help="The node's weights folder.")] = Path("weights")) -> None:
    """Put a run's bundle into service as `current`; the node (analysis.bundle = "current") loads it for its next study.

    Exit status: 3 if the gate was not passed.
    """
    from training.release import promotion

    done = promotion.promote(run, to)
    typer.echo(f"{to / promotion.CURRENT} is now {done.bundle} (previously {done.before or 'none'})")


@app.command(epilog="Example: training rollback weights/")
def rollback(weights: Annotated[Path, typer.Argument(metavar="WEIGHTS", help="The node's weights folder.")]) -> None:
    """Put the bundle from before the last promotion back into service."""
    from training.release import promotion

    done = promotion.rollback(weights)
    typer.echo(f"{weights / promotion.CURRENT} is {done.bundle} again; {done.before} is out of service")
