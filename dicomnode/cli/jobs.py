"""`dicomnode jobs`."""

import json
from typing import Annotated, Any

import typer

from dicomnode.cli import corrections
from dicomnode.cli.common import DEFAULT_CONFIG, ConfigOption, JsonOption, load, table

app = typer.Typer(help="List and manage jobs: what was received, analysed and delivered.", no_args_is_help=True)
corrections.add_to(app)


@app.command("list")
def jobs_list(
    config_file: ConfigOption = DEFAULT_CONFIG,
    state: Annotated[str | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first.

    Example: dicomnode jobs list --state failed
    """
    from dicomnode.operations import jobs

    rows = jobs.overview(load(config_file), state, limit)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table(
        ["study", "gen.", "state", "images", "last image", "delivered", "reason", "flags"],
        [
            [
                r["study_uid"],
                str(r["generation"]),
                r["state"],
                str(r["instances"]),
                r["last_seen"],
                r["delivered"],
                r["reason"],
                r["flags"],
            ]
            for r in rows
        ],
    )


StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="Study Instance UID.")]
GenerationOption = Annotated[int | None, typer.Option(help="Generation. Default: the latest.")]


@app.command("show")
def jobs_show(
    study_uid: StudyArgument,
    config_file: ConfigOption = DEFAULT_CONFIG,
    generation: GenerationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one job: state, series, deliveries.

    Example: dicomnode jobs show 1.2.840.113619.2.55.3.4
    """
    from dicomnode.operations import jobs

    shown = jobs.details(load(config_file), study_uid, generation)
    if as_json:
        typer.echo(json.dumps(shown, indent=2))
        return
    table(["", ""], [[k, str(v)] for k, v in shown.items() if not isinstance(v, list | dict)])
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
    study_uid: StudyArgument, config_file: ConfigOption = DEFAULT_CONFIG, generation: GenerationOption = None
) -> None:
    """Run an ended job again.

    If only deliveries failed, only they are repeated. Objects that a destination has accepted are not sent twice. Where
    destinations hold its results, the new ones are the next generation's, and name those that they replace.

    Example: dicomnode jobs retry 1.2.840.113619.2.55.3.4
    """
    from dicomnode.operations import jobs

    typer.echo(jobs.retry(load(config_file), study_uid, generation))


@app.command("cancel")
def jobs_cancel(
    study_uid: StudyArgument, config_file: ConfigOption = DEFAULT_CONFIG, generation: GenerationOption = None
) -> None:
    """Cancel a job that has not ended. Received images are kept.

    Example: dicomnode jobs cancel 1.2.840.113619.2.55.3.4
    """
    from dicomnode.operations import jobs

    typer.echo(jobs.cancel(load(config_file), study_uid, generation))
