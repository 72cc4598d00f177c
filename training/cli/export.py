"""The command that gives a run's figures to other programs."""

from pathlib import Path
from typing import Annotated

import typer

from dicomnode.errors import UsageError

app = typer.Typer()


@app.command("export-run", epilog="Example: training export-run run --tensorboard boards")
def export_run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of an evaluated run.")],
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write an event file into FOLDER/RUN.")
    ] = None,
    mlflow: Annotated[
        str, typer.Option(metavar="TARGET", help="Log to an MLflow server (URI), or into a folder.")
    ] = "",
    experiment: Annotated[str, typer.Option(help="Of MLflow.")] = "dicomnode",
) -> None:
    """Export a run's settings, metrics and loss curves to TensorBoard or MLflow; no patient is in them."""
    from training.report import exports

    if tensorboard is None and not mlflow:
        raise UsageError("give --tensorboard FOLDER or --mlflow TARGET")
    found = exports.figures_of(run)
    if tensorboard is not None:
        typer.echo(f"{exports.to_tensorboard(found, tensorboard)}: view it with tensorboard --logdir {tensorboard}")
    if mlflow:
        typer.echo(f"{mlflow}: run {exports.to_mlflow(found, mlflow, experiment)}")
