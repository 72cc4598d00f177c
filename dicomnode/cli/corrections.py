"""`dicomnode jobs accept`, `reject` and `drop`: decisions about what a study holds."""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from dicomnode.cli.common import DEFAULT_CONFIG, ConfigOption, load, table
from dicomnode.logs import escaped
from dicomnode.words.numerals import plural

if TYPE_CHECKING:
    from dicomnode.operations.corrections import HeldVersion

StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="Study Instance UID.")]
ObjectOption = Annotated[str | None, typer.Option("--object", help="Only this SOP Instance UID. Default: all.")]
ValuesOption = Annotated[bool, typer.Option("--values", help="Show the values that differ: they may name a patient.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to `dicomnode jobs`."""
    app.command("accept")(jobs_accept)
    app.command("reject")(jobs_reject)
    app.command("drop")(jobs_drop)


def jobs_accept(
    study_uid: StudyArgument,
    config_file: ConfigOption = DEFAULT_CONFIG,
    sop_instance_uid: ObjectOption = None,
    values: ValuesOption = False,
    dry_run: DryRunOption = False,
    minutes: Annotated[
        float, typer.Option(min=0, help="For so long, take more of the same correction as it comes.")
    ] = 60.0,
) -> None:
    """Take what came again with other content as the truth; the study is analysed or its results are made anew.

    First shows in which attributes both versions differ. What is replaced is kept for storage.replaced_days.

    Example: dicomnode jobs accept 1.2.840.113619.2.55.3.4
    """
    from dicomnode.operations import corrections

    config = load(config_file)
    found = corrections.held(config, study_uid, sop_instance_uid)
    show(found, values=values)
    if not dry_run:
        typer.echo(corrections.accept(config, study_uid, found, 0.0 if sop_instance_uid else minutes))


def jobs_reject(
    study_uid: StudyArgument,
    config_file: ConfigOption = DEFAULT_CONFIG,
    sop_instance_uid: ObjectOption = None,
    values: ValuesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Throw away what came again with other content; the study stays as it is.

    First shows in which attributes both versions differ.

    Example: dicomnode jobs reject 1.2.840.113619.2.55.3.4
    """
    from dicomnode.operations import corrections

    config = load(config_file)
    show(corrections.held(config, study_uid, sop_instance_uid), values=values)
    if not dry_run:
        typer.echo(corrections.reject(config, study_uid, sop_instance_uid))


def jobs_drop(
    study_uid: StudyArgument,
    config_file: ConfigOption = DEFAULT_CONFIG,
    sop_instance_uid: ObjectOption = None,
    because: Annotated[
        str, typer.Option(help="quality, patient-safety, wrong-worklist-entry or retention-expired.")
    ] = "quality",
    dry_run: DryRunOption = False,
) -> None:
    """Take one object, or all of a study, out of it. Results made from them are replaced or rejected.

    Example: dicomnode jobs drop 1.2.840.113619.2.55.3.4 --object 1.2.840.113619.2.55.3.4.5
    """
    from dicomnode.operations import corrections

    typer.echo(corrections.drop(load(config_file), study_uid, sop_instance_uid, because, dry_run=dry_run))


def show(found: "Sequence[HeldVersion]", *, values: bool) -> None:
    """Print the differences; objects that differ alike share a row."""
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for one in found:
        named = [escaped(f"{d.attribute}: {d.before} -> {d.after}") if values else d.attribute for d in one.differences]
        missing = ["(no longer in quarantine)"] if one.path is None else []
        missing += ["(the study's images were removed)"] if one.standing is None else []
        alike[(*named, *missing)].append(one.conflict.sop_instance_uid)
    rows = [
        [
            uids[0] if len(uids) == 1 else plural(len(uids), "object"),
            ("\n" if values else ", ").join(what) or "(encoding)",
        ]
        for what, uids in alike.items()
    ]
    table(["received again with different content", "differs in"], rows)
