"""`dicomnode jobs retry | cancel | reanalyse` for many studies at once."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicomnode.cli.common import DEFAULT_CONFIG, ConfigOption, load
from dicomnode.errors import UsageError

if TYPE_CHECKING:
    from dicomnode.operations.bulk import BulkOutcome

ManyStudiesArgument = Annotated[
    str, typer.Argument(metavar="[STUDY]", help="Study Instance UID; without it, the options choose.")
]
StateOption = Annotated[str, typer.Option(help="All jobs in this state.")]
DestinationOption = Annotated[str, typer.Option(help="All of which this destination lacks something.")]
SinceOption = Annotated[str, typer.Option(help="All that changed since '2026-11-28', '2026-11-28T14:30' or '24h' ago.")]
ProfileOption = Annotated[str, typer.Option(help="All that are analysed by this profile.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only show which, and how many.")]


def run(
    config_file: Path,
    command: str,
    done: str,
    state: str,
    destination: str,
    since: str,
    profile: str,
    *,
    dry_run: bool,
) -> None:
    """Retry or cancel what the options choose, and print the count. Raises UsageError."""
    from dicomnode.operations import bulk

    outcome = bulk.run(load(config_file), command, bulk.JobFilter(state, destination, since, profile), dry_run=dry_run)
    _tell(outcome, done, dry_run=dry_run)


def _tell(outcome: "BulkOutcome", done: str, *, dry_run: bool) -> None:
    """Print what became of the studies; the exit status says where none of those that were meant could be taken."""
    from dicomnode import logs
    from dicomnode.operations import bulk

    for line in bulk.lines(outcome, done, dry_run=dry_run):
        typer.echo(logs.escaped(line))
    if outcome.failed and not outcome.done:
        raise SystemExit(3)


def alone(*options: str, dry_run: bool) -> None:
    """Raise UsageError where options that choose studies are given beside a study."""
    if any(options) or dry_run:
        raise UsageError("give either a STUDY or --state, --destination, --since, --profile, --dry-run")


def jobs_reanalyse(
    config_file: ConfigOption = DEFAULT_CONFIG,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="bundle: made with another bundle than is served now; bundle=NAME: made with that one; method: by "
            "another method than today's; profile=NAME: analysed by it. Repeated: all have to hold."
        ),
    ] = None,
    per_hour: Annotated[float, typer.Option(min=0.1, max=3600, help="So many studies in an hour.")] = 30.0,
    dry_run: DryRunOption = False,
    stop: Annotated[bool, typer.Option("--stop", help="Take those off the list that still wait.")] = False,
) -> None:
    """Analyse all studies once more that a new bundle or a changed profile would change.

    The running node takes them up one by one, at research priority. A result that changes becomes a new version; one
    that does not is not sent again.

    Example: dicomnode jobs reanalyse --where bundle --per-hour 20 --dry-run
    """
    from dicomnode.operations import bulk

    config = load(config_file)
    if stop:
        typer.echo(f"taken off the list: {bulk.stop_reanalysing(config)}")
        return
    _tell(bulk.reanalyse(config, where or [], per_hour, dry_run=dry_run), "analysed again", dry_run=dry_run)
