"""Options and helpers of several commands."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dicomnode.config import Config
    from dicomnode.outbound.peers import Outbound

DEFAULT_CONFIG = Path("ae_config.toml")
#: Columns of a terminal with room for a UID (64) and what stands beside it.
_WIDE = 150
ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def load(path: Path) -> "Config":
    """Return the configuration. Raises ConfigurationError."""
    from dicomnode import config

    return config.load(path)


def configure(path: Path, process: str) -> "Config":
    """Return the configuration, for a process that runs on and logs under the name `process`."""
    from dicomnode import logs

    config = load(path)
    logs.configure(config.logging.level, process)
    return config


def find_peer(text: str, path: Path) -> "Outbound":
    """Return a destination by its name in the file at `path`, or as AET@HOST:PORT.

    Raises UsageError, ConfigurationError.
    """
    from dicomnode.outbound.peers import find

    return find(text, path)


def table(columns: list[str], rows: list[list[str]]) -> None:
    """Print a table for people."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 200, markup=False, emoji=False)
    made = Table(show_edge=False, pad_edge=False)
    for number, column in enumerate(columns):
        # The first column is a UID more often than not, and people copy it: whole, where there is room.
        made.add_column(column, overflow="fold", no_wrap=number == 0 and console.width >= _WIDE)
    for row in rows:
        made.add_row(*row)
    console.print(made)
