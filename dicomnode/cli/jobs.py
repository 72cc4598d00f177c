"""`dicomnode jobs`."""

import json
from typing import Annotated, Any

import typer

from dicomnode.cli import bulk, corrections
from dicomnode.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption, load, table

app = typer.Typer(help="List and manage jobs: what was received, analysed and delivered.", no_args_is_help=True)
app.command("reanalyse")(bulk.jobs_reanalyse)
corrections.add_to(app)


IdentifyOption = Annotated[
    bool, typer.Option("--identify", help="Also show Patient ID, accession number, study date and description.")
]


@app.command("list")
def jobs_list(
    config_file: ConfigOption = DEFAULT_CONFIG,
    state: Annotated[list[str] | None, typer.Option(help="Only in this state; may be repeated.")] = None,
    patient: Annotated[str, typer.Option(help="Only of this Patient ID (the whole ID).")] = "",
    accession: Annotated[str, typer.Option(help="Only of this accession number (the whole number).")] = "",
    sender: Annotated[str, typer.Option(help="Only from this calling AE title.")] = "",
    since: Annotated[str, typer.Option(help="Last image since: 30m, 2h, 3d, 2026-11-29 or 2026-11-29T18:30.")] = "",
    text: Annotated[str, typer.Option(help="Part of the Study Instance UID, or of the reason.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Show at most this many.")] = 50,
    identify: IdentifyOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every two seconds, until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List studies, also those still arriving, newest first. Times are this machine's.

    Example: dicomnode jobs list --state failed --since 2d
    """
    from dicomnode.cli import pages
    from dicomnode.operations import looking

    wanted = looking.wanted(
        states=tuple(state or ()),
        patient=patient,
        accession=accession,
        sender=sender,
        since=since,
        text=text,
        limit=limit,
    )
    pages.show(load(config_file), wanted, identify=identify, watch=watch, as_json=as_json)


StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="Study Instance UID.")]
GenerationOption = Annotated[int | None, typer.Option(help="Generation. Default: the latest.")]


@app.command("show")
def jobs_show(
    study_uid: StudyArgument,
    config_file: ConfigOption = DEFAULT_CONFIG,
    generation: GenerationOption = None,
    identify: IdentifyOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show one job: state, times, series, deliveries.

    Example: dicomnode jobs show 1.2.840.113619.2.55.3.4
    """
    from dicomnode.cli import pages
    from dicomnode.operations import jobs

    shown = jobs.details(load(config_file), study_uid, generation, identify=identify)
    if as_json:
        typer.echo(json.dumps(shown, indent=2))
        return
    table(["", ""], pages.facts(shown))
    table(["time", "generation", "state", "reason"], pages.timeline(shown))
    if shown["routing"]:
        _show_routing(shown["routing"])
    if shown["series"]:
        table(["series", "modality", "slices", "decision"], [list(map(str, s.values())) for s in shown["series"]])
    if shown["deliveries"]:
        table(
            ["destination", "object", "state", "attempts", "status", "message"],
            [list(map(str, d.values())) for d in shown["deliveries"]],
        )
    if shown["conflicts"]:
        table(
            ["received again with different content", "SHA-256 (file name in quarantine)", "received"],
            [list(map(str, c.values())) for c in shown["conflicts"]],
        )
    if shown["corrections"]:
        table(["decision", "objects", "by", "at"], [list(map(str, c.values())) for c in shown["corrections"]])


def _show_routing(routing: dict[str, Any]) -> None:
    from dicomnode.cli.routes import show
    from dicomnode.routing.rules import RoutingDecision

    typer.echo(f"routed at {routing['decided_at']}; released manually: {routing['released_at'] or 'no'}")
    show(RoutingDecision.of(routing), values=False)


@app.command("release")
def jobs_release(study_uid: StudyArgument, config_file: ConfigOption = DEFAULT_CONFIG) -> None:
    """Release a study that a routing rule has held.

    Example: dicomnode jobs release 1.2.840.113619.2.55.3.4
    """
    from dicomnode.operations import jobs

    typer.echo(jobs.release(load(config_file), study_uid))


@app.command("retry")
def jobs_retry(
    study_uid: bulk.ManyStudiesArgument = "",
    config_file: ConfigOption = DEFAULT_CONFIG,
    generation: GenerationOption = None,
    state: bulk.StateOption = "",
    destination: bulk.DestinationOption = "",
    since: bulk.SinceOption = "",
    profile: bulk.ProfileOption = "",
    dry_run: bulk.DryRunOption = False,
) -> None:
    """Run an ended or held job again, or all that the options choose (failed ones by default).

    If only deliveries failed, only they are repeated. Objects that a destination has accepted are not sent twice. Where
    destinations hold its results, the new ones are the next generation's, and name those that they replace.

    Example: dicomnode jobs retry --destination pacs --since 24h --dry-run

    Example: dicomnode jobs retry 1.2.840.113619.2.55.3.4
    """
    from dicomnode.operations import jobs

    if not study_uid:
        bulk.run(config_file, "retry", "retried", state, destination, since, profile, dry_run=dry_run)
        return
    bulk.alone(state, destination, since, profile, dry_run=dry_run)
    typer.echo(jobs.retry(load(config_file), study_uid, generation))


@app.command("cancel")
def jobs_cancel(
    study_uid: bulk.ManyStudiesArgument = "",
    config_file: ConfigOption = DEFAULT_CONFIG,
    generation: GenerationOption = None,
    state: bulk.StateOption = "",
    destination: bulk.DestinationOption = "",
    since: bulk.SinceOption = "",
    profile: bulk.ProfileOption = "",
    dry_run: bulk.DryRunOption = False,
) -> None:
    """Cancel a job that has not ended, or all that the options choose; give up a failed one. Images are kept.

    Example: dicomnode jobs cancel --state held --dry-run

    Example: dicomnode jobs cancel 1.2.840.113619.2.55.3.4
    """
    from dicomnode.operations import jobs

    if not study_uid:
        bulk.run(config_file, "cancel", "cancelled", state, destination, since, profile, dry_run=dry_run)
        return
    bulk.alone(state, destination, since, profile, dry_run=dry_run)
    typer.echo(jobs.cancel(load(config_file), study_uid, generation))
