"""The `dicomnode` command. Each command imports what it needs, so that `--help` answers at once."""

import os
import sys
from typing import Annotated, NoReturn

import typer

from dicomnode import __version__, logs
from dicomnode.cli import (
    analysis,
    backup,
    bulk_studies,
    conformance,
    console,
    jobs,
    node,
    notify,
    registry,
    results,
    routes,
    tls,
    weights,
    worklist,
)
from dicomnode.errors import DicomnodeError, UsageError
from dicomnode.files import private_umask

app = typer.Typer(
    help="A DICOM node that quantifies systemic sclerosis lung disease on chest CT. Research use only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,  # the plain help: rich's shows every flag as <bool>
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(node.app)
app.add_typer(analysis.app)
app.add_typer(worklist.app)
app.add_typer(backup.app)
app.add_typer(bulk_studies.app)
app.add_typer(jobs.app, name="jobs")
app.add_typer(registry.app, name="registry")
app.add_typer(results.app, name="results")
app.add_typer(weights.app, name="weights")
app.add_typer(routes.app, name="routes")
app.add_typer(notify.app, name="notify")
app.add_typer(tls.app, name="tls")
app.add_typer(console.app, name="console")
app.add_typer(conformance.app)


def main() -> None:
    """Run the command line: the one place where errors become messages and exit statuses."""
    if "_DICOMNODE_COMPLETE" in os.environ:  # a shell asks for completion (docs/admin/commands.md)
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
    private_umask()  # patients' data are written by nearly every command
    logs.configure("warning", "dicomnode")
    try:
        app(prog_name="dicomnode")
    except DicomnodeError as e:
        fail(e)
    except OSError as e:
        if e.filename is None:
            raise
        # An unwritable folder or a full disk is for the user to fix, not a bug.
        fail(UsageError(f"{e.filename}: {e.strerror}; check the path, its owner and the disk"))


def fail(error: DicomnodeError) -> NoReturn:
    """Print the message and leave with the error's exit status."""
    lines = "\n".join(logs.escaped(line) for line in str(error).split("\n"))
    print(f"dicomnode: {lines}", file=sys.stderr)  # noqa: T201
    raise SystemExit(error.exit_code)


def _version(show: bool) -> None:
    if show:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    _show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A DICOM node that quantifies systemic sclerosis lung disease on chest CT. Research use only."""  # noqa: D401  (the help)
