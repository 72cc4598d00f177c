"""`dicomnode import` and `dicomnode retrieve`: many studies, when nothing else waits."""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicomnode.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption, load, table
from dicomnode.words.numerals import plural

if TYPE_CHECKING:
    from dicomnode.config import Config
    from dicomnode.operations.importing import ImportReport
    from dicomnode.operations.retrieve_report import RowReport

app = typer.Typer()
#: So many files, or rows, are named where nobody asked for JSON.
_MOST_NAMED = 20
QueueOption = Annotated[int, typer.Option(min=0, help="Wait while this many studies are to be analysed; 0: never.")]


@app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder with DICOM files, of any depth.")],
    config_file: ConfigOption = DEFAULT_CONFIG,
    calling: Annotated[str, typer.Option("--as", help="Calling AE title by which routing rules know it.")] = "IMPORT",
    called: Annotated[str, typer.Option("--to", help="AE title of the node that it calls; its own by default.")] = "",
    rate: Annotated[
        str, typer.Option(help="Images per second '20/s', studies per hour '60/h', '0' for no limit.")
    ] = "20/s",
    queue: QueueOption = 100,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the results here: nothing is sent.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only read the headers, and count.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Import old studies from a folder, as if they had been sent to the node.

    The folder is only read. Studies are analysed at research priority. An import that was cut short goes on when it is
    called again, and no study comes twice.

    Exit status: 0 all came in, 3 some objects did not.

    Example: dicomnode import /archive/2019 --rate 60/h --as ARCHIVE
    """
    from dicomnode.operations import importing
    from dicomnode.operations.pacing import Rate

    config = load(config_file)
    options = importing.ImportOptions(_ae_title(calling), called, Rate.of(rate), queue, keep)
    with _shown() as (follow, told):
        done = importing.run(config, folder, options, follow, told, dry_run=dry_run)
    typer.echo(done.to_json()) if as_json else _import_told(done)
    if not done.is_whole and not dry_run:
        raise SystemExit(3)


def _ae_title(text: str) -> str:
    from dicomnode.config.fields import ae_title
    from dicomnode.errors import UsageError

    try:
        return ae_title(text)
    except ValueError:
        raise UsageError(f"--as {text!r} is not an AE title: 1 to 16 plain characters") from None


def _import_told(done: "ImportReport") -> None:
    from dicomnode import logs

    left_out = [*done.not_taken, *done.refused]
    for one in left_out[:_MOST_NAMED]:
        typer.echo(f"{logs.escaped(one['file'])}: {one['code']}: {logs.escaped(one['text'])}")
    if len(left_out) > _MOST_NAMED:
        typer.echo(f"… and {len(left_out) - _MOST_NAMED} more: see --json")
    what = (
        f"{plural(done.files, 'DICOM object')} of {plural(done.studies, 'study', 'studies')}, {done.bytes / 1e9:.2f} GB"
    )
    others = f"{plural(len(done.not_taken), 'file')} not taken, {done.ignored} ignored (hidden, DICOMDIR)"
    if done.dry_run:
        typer.echo(f"{what}; {plural(done.present, 'study', 'studies')} came before; {others}")
        return
    typer.echo(
        f"{what}: {plural(done.imported, 'study', 'studies')} imported, "
        f"{done.present} came before; {plural(done.stored, 'object')} stored, "
        f"{len(done.refused)} refused; {others}"
    )


@app.command()
def retrieve(
    cohort: Annotated[Path, typer.Argument(metavar="LIST", help="CSV file: one row for each study.")],
    config_file: ConfigOption = DEFAULT_CONFIG,
    rate: Annotated[
        str, typer.Option(help="Studies per hour '30/h', '0' for no limit. Default: priors.studies_per_hour.")
    ] = "",
    hours: Annotated[
        str | None, typer.Option(help="Only within these hours, '19:00-06:00', or ''. Default: priors.quiet_hours.")
    ] = None,
    queue: QueueOption = 100,
    send: Annotated[bool, typer.Option("--send/--keep", help="Send the results, or keep them here.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Ask again for rows that were not found, ambiguous, refused or incomplete.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="CSV file of the report; JSON beside it. Default: LIST with .report.csv.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only ask the PACS what there is.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch a research cohort from the PACS of [priors].

    The first row of LIST names the columns: accession_number, or study_uid, or patient_id and study_date; also issuer.
    A row that does not mean exactly one study is reported, not guessed. Studies are analysed at research priority. A
    retrieval that was cut short goes on when it is called again.

    Exit status: 0 every row is here, 3 some are not.

    Example: dicomnode retrieve cohort.csv --hours 19:00-06:00 --rate 30/h
    """
    from dicomnode.errors import UsageError
    from dicomnode.operations import retrieve_report, retrieving
    from dicomnode.operations.pacing import Rate

    config = _within(load(config_file), hours)
    usual = config.priors.studies_per_hour if config.priors is not None else 0
    limit = Rate.of(rate or f"{usual}/h")
    if limit.images_per_second:
        raise UsageError("--rate: give studies per hour ('30/h') or '0'")
    options = retrieving.RetrieveOptions(limit, queue, send, again)
    out = report or cohort.with_name(f"{cohort.stem}.report.csv")
    retrieve_report.refuse(out, cohort)

    def write(rows: "Sequence[RowReport]") -> None:
        retrieve_report.write(out, rows)

    with _shown() as (follow, told):
        rows = retrieving.run(
            config,
            cohort,
            options,
            lambda done, total: follow("rows", done, total),
            told,
            write,
            dry_run=dry_run,
        )
    if dry_run:
        write(rows)
    good = sum(one.state in retrieve_report.GOOD for one in rows)
    if as_json:
        typer.echo(retrieve_report.as_json(rows))
    else:
        _rows_told(rows, good, out, dry_run=dry_run)
    if good < len(rows) and not dry_run:
        raise SystemExit(3)


def _within(config: "Config", hours: str | None) -> "Config":
    """Return the configuration with other quiet hours. Raises UsageError."""
    from pydantic import ValidationError

    from dicomnode.errors import UsageError

    if hours is None or config.priors is None:
        return config
    try:
        table_ = type(config.priors).model_validate({**dict(config.priors), "quiet_hours": hours})
    except ValidationError:
        raise UsageError(f"--hours {hours!r}: give hours such as '19:00-06:00', or '' for all") from None
    return config.model_copy(update={"priors": table_})


def _rows_told(rows: "Sequence[RowReport]", good: int, out: Path, *, dry_run: bool) -> None:
    from collections import Counter

    from dicomnode.operations.retrieve_report import GOOD

    others = [one for one in rows if one.state not in GOOD and not (dry_run and one.state == "pending")]
    if others:
        shown = [[str(one.row), one.state, one.reason] for one in others[:_MOST_NAMED]]
        table(["row", "state", "reason"], shown)
    counted = ", ".join(f"{number} {state}" for state, number in Counter(one.state for one in rows).most_common())
    what = (
        f"{good} of {plural(len(rows), 'row is', 'rows are')} here"
        if not dry_run
        else f"{plural(len(rows), 'row')} asked for"
    )
    typer.echo(f"{what} ({counted.replace('pending', 'to be fetched') if dry_run else counted}); report: {out}")


@contextmanager
def _shown() -> Iterator[tuple[Callable[[str, int, int], None], Callable[[str], None]]]:
    """Show how far it has come and what it waits for, on a terminal; a SIGTERM ends it as Ctrl-C does."""
    from rich import progress
    from rich.console import Console

    from dicomnode import logs

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[wait]}", markup=False),
    )
    is_terminal = sys.stderr.isatty()
    with progress.Progress(*columns, console=Console(stderr=True), disable=not is_terminal) as bar:
        task = bar.add_task("", total=None, wait="")

        def follow(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        def told(text: str) -> None:
            text = logs.escaped(text)
            bar.update(task, wait=text)
            if text and not is_terminal:
                typer.echo(text, err=True)

        yield follow, told
