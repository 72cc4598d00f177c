"""`dicomnode backup` and `dicomnode restore`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicomnode.cli.common import DEFAULT_CONFIG, ConfigOption, load
from dicomnode.words.numerals import plural

if TYPE_CHECKING:
    from dicomnode.operations.backup_format import Told

app = typer.Typer()


@app.command()
def backup(
    to: Annotated[Path, typer.Argument(metavar="TO", help="A new folder, or one whose backup was cut short.")],
    config_file: ConfigOption = DEFAULT_CONFIG,
    keys: Annotated[
        Path | None, typer.Option(help="Copy the keys too, into this folder. They are never in the backup itself.")
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy files on the same disk, instead of linking them.")] = False,
) -> None:
    """Back up the whole node, while it runs: images, results, databases, bundles, configuration.

    A backup that was cut short goes on when it is called again.

    Example: dicomnode backup /backup/2026-11-29 --keys /safe/dicomnode-keys
    """
    from dicomnode.operations import backup as operation

    config = load(config_file)
    with _bars() as told:
        done = operation.backup(config, config_file, to, told, keys=keys, link=not copy)
    made = done.manifest
    typer.echo(
        f"{to} is whole: {plural(made.instances, 'image')}, {plural(made.jobs, 'job')}; "
        f"{plural(made.files, 'file')}, {made.bytes / 1e9:.2f} GB"
    )
    if made.missing:
        typer.echo(
            f"{plural(made.missing, 'image of the catalogue has', 'images of the catalogue have')} "
            f"no file in the spool: see `dicomnode check --deep`"
        )
    if done.linked:
        typer.echo(
            f"{plural(done.linked, 'file is a link', 'files are links')} "
            f"to the node's own: copy the folder to another disk"
        )
    where = "are not in it" if keys is None else f"are not in it, but in {keys}"
    typer.echo(f"The keys {where}; keep them apart from the backup, a restore needs them:")
    for key, path in done.keys.items():
        typer.echo(f"  {key}: {path}")


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(metavar="FROM", help="The folder of a whole backup.")],
    config_file: ConfigOption = DEFAULT_CONFIG,
    keys: Annotated[Path | None, typer.Option(help="The folder that `backup --keys` wrote.")] = None,
    new_patient_key: Annotated[
        bool,
        typer.Option("--new-patient-key", help="The key is lost: make a new one. Prior scans of before are not found."),
    ] = False,
) -> None:
    """Restore a node from a backup, into empty folders and an empty database.

    Without the configuration file, the one of the backup is written there. A restore that was cut short goes on when it
    is called again. The node of the backup must not run any more.

    Example: dicomnode restore /backup/2026-11-29 --keys /safe/dicomnode-keys --config ae_config.toml
    """
    from dicomnode.operations import restore as operation

    with _bars() as told:
        done = operation.restore(source, config_file, told, keys=keys, new_patient_key=new_patient_key)
    typer.echo(
        f"restored: {plural(done.instances, 'image')}, {plural(done.jobs, 'job')}; "
        f"{plural(done.taken_over, 'begun workflow is', 'begun workflows are')} queued again"
    )
    if done.missing:
        typer.echo(f"{plural(done.missing, 'image')} had no file in the spool before the backup, and still none")
    for key, path in done.absent_keys.items():
        typer.echo(f"missing: {path} ({key}); it is a key, and not in the backup")
    typer.echo(f"Now: dicomnode check --config {config_file}; start it only if the node of the backup never runs again")


@contextmanager
def _bars() -> "Iterator[Told]":
    """Show a bar for each thing that is done; without a terminal, none."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TimeElapsedColumn

    bars: dict[str, TaskID] = {}
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, disable=not sys.stderr.isatty()) as shown:

        def told(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = shown.add_task(what)
            shown.update(bars[what], completed=done, total=total or None)

        yield told
