"""One study, without network or database."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicomnode.cli.common import JsonOption, load, table
from dicomnode.errors import UsageError

if TYPE_CHECKING:
    from dicomnode.operations.explain import Explanation

app = typer.Typer()


@app.command()
def analyze(
    source: Annotated[Path, typer.Argument(metavar="INPUT", help="A folder of DICOM files, or one file.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="Use this file's [analysis] and [results]. Default: the shipped demo settings."
        ),
    ] = None,
    prior: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="findings.json of a prior scan, for the change report (repeatable)."),
    ] = None,
    covariates: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML with what the bundle takes beside the image, such as fvc_l = 2.9."),
    ] = None,
    earlier: Annotated[list[Path] | None, typer.Option(hidden=True)] = None,  # the former name of --prior
) -> None:
    """Analyse a study without network or database.

    It runs under the limits of [worker]: a study that takes more memory or time is refused as too large.

    Exit status: 0 analysed, 2 usage or configuration error, 3 refused (findings.json says why).

    Example: dicomnode analyze ~/scans/case-7 --out case-7-results
    """
    from dicomnode.config.node import WorkerTable
    from dicomnode.operations import limited

    if not source.exists():
        raise UsageError(f"{source}: no such file or folder")
    priors = [*(prior or ()), *(earlier or ())]
    config = None if config_file is None else load(config_file)
    limits = (WorkerTable() if config is None else config.worker).limits

    # Each imports the analysis for itself: what is forked must not have begun threads.
    def work() -> int:
        from dicomnode.operations import analyze

        table = None if config is None else config.analysis
        maps = config is not None and config.results.attenuation_maps
        return analyze.run(source, out, table, priors, limits.memory_bytes, covariates, attenuation_maps=maps)

    def over(why: str) -> int:
        from dicomnode.operations import analyze

        return analyze.refused(out, why)

    try:
        status = limited.run(work, limits, over)
    except MemoryError:
        status = over("its analysis needs more memory than there is (worker.memory_gb)")
    raise SystemExit(status)


@app.command()
def explain(
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder of DICOM files, or one file.")],
    config_file: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Use this file's selection rules. Default: built in."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show which series would be analysed, and why others are not.

    Exit status: 0 a series is suitable, 3 none is.

    Example: dicomnode explain ~/scans/case-7
    """
    from dataclasses import asdict

    from dicomnode.analysis.series.selection_rules import DEFAULT
    from dicomnode.operations import explain as explaining

    if not source.exists():
        raise UsageError(f"{source}: no such file or folder")
    found = explaining.explain(source, DEFAULT if config_file is None else load(config_file).analysis.selection.rules)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2, ensure_ascii=False))
    else:
        _show(found)
    raise SystemExit(0 if any(r.chosen for r in found.rows) else 3)


def _show(found: "Explanation") -> None:
    from dicomnode import logs

    if found.rows:
        table(
            ["series", "modality", "slices", "spacing, mm", "kernel", "coverage, mm", "decision"],
            [
                [
                    f"{r.series_uid} {r.part}".strip(),
                    r.modality,
                    str(r.slices),
                    "-" if r.step_mm is None else f"{r.step_mm:.2f}",
                    r.kernel or "-",
                    "-" if r.coverage_mm is None else f"{r.coverage_mm:.0f}",
                    r.decision,
                ]
                for r in found.rows
            ],
        )
    else:
        typer.echo("no readable DICOM image found")
    for flag in found.flags:
        typer.echo(logs.escaped(flag))
