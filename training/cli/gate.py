"""The commands between a finished run and the node: compare, promote, rollback."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from training.cli.bars import bars

app = typer.Typer()

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")]


@app.command(epilog="Example: training compare run/ weights/current")
def compare(
    run: Run,
    current: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="The bundle that serves now; leave it out if none does.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Say whether a run's bundle may take the place of the one that serves, and why (gate.json in the run).

    Exit status: 0 it may, 3 it may not.
    """
    from training.release.gate import compare as judge

    with bars() as progress:
        verdict = judge(run, current, progress)
    if as_json:
        typer.echo(json.dumps(asdict(verdict), indent=2))
    else:
        for check in verdict.checks:
            typer.echo(f"{'holds ' if check.passed else 'FAILED'}  {check.name}: {check.text}")
        typer.echo("the gate is passed" if verdict.passed else "the gate is not passed")
    raise typer.Exit(0 if verdict.passed else 3)


@app.command(epilog="Example: training promote run/ --to weights/")
def promote(run: Run, to: Annotated[Path, typer.Option(help="The node's weights folder.")] = Path("weights")) -> None:
    """Let a run's bundle serve as `current`. The node (analysis.bundle = "current") takes it with its next study.

    Exit status: 3 if the gate was not passed.
    """
    from training.release import promotion

    done = promotion.promote(run, to)
    typer.echo(f"{to / promotion.CURRENT} is {done.bundle} now; before: {done.before or 'nothing'}")


@app.command(epilog="Example: training rollback weights/")
def rollback(weights: Annotated[Path, typer.Argument(metavar="WEIGHTS", help="The node's weights folder.")]) -> None:
    """Let the bundle from before the last promotion serve again."""
    from training.release import promotion

    done = promotion.rollback(weights)
    typer.echo(f"{weights / promotion.CURRENT} is {done.bundle} again, in place of {done.before}")
