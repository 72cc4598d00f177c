"""`dicomnode results`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from dicomnode.cli.common import DEFAULT_CONFIG, ConfigOption, load
from dicomnode.errors import UsageError
from dicomnode.words.numerals import plural

app = typer.Typer(help="The results of many studies together.", no_args_is_help=True)


@app.command("export")
def results_export(
    config_file: ConfigOption = DEFAULT_CONFIG,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="OUT", help="Write a CSV file.")] = None,
    parquet: Annotated[
        Path | None, typer.Option("--parquet", metavar="OUT", help="Write a Parquet file (needs pyarrow).")
    ] = None,
    since: Annotated[str, typer.Option(help="Analysed since: 24h, 30d, 2026-11-01 or 2026-11-01T18:30.")] = "",
    until: Annotated[str, typer.Option(help="Analysed before, likewise.")] = "",
    identify: Annotated[
        bool, typer.Option("--identify", help="With UIDs, Patient IDs, accession numbers and dates, not pseudonyms.")
    ] = False,
) -> None:
    """Export what was found as a table: one row for each analysed generation of a study.

    Study and patient are the registry's pseudonyms. Numbers have their unit in the name of their column.

    Example: dicomnode results export --since 90d --csv quality.csv
    """
    import time

    from rich.console import Console
    from rich.progress import Progress

    from dicomnode.operations import results_export
    from dicomnode.operations.looking import since_s

    if (csv is None) == (parquet is None):
        raise UsageError("give either --csv OUT or --parquet OUT")
    out = csv or parquet
    assert out is not None
    config, now = load(config_file), time.time()
    first, last = (since_s(one, now) if one else None for one in (since, until))
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("results", total=None)
        count = results_export.run(
            config,
            out,
            first,
            last,
            lambda done, total: bar.update(task, completed=done, total=total),
            parquet=parquet is not None,
            identify=identify,
        )
    typer.echo(f"{out}: {plural(count, 'row')}" + (", WITH PATIENT DATA" if identify else ""))
