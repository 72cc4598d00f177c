"""Options and helpers of several commands."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dicomnode.config import Config
    from dicomnode.peers import Outbound

DEFAULT_CONFIG = Path("ae_config.toml")
ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The configuration file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def load(path: Path) -> "Config":
    """The configuration. Raises ConfigurationError."""
    from dicomnode import config

    return config.load(path)


def configure(path: Path, process: str) -> "Config":
    """The configuration, for a process that runs on and logs under the name `process`."""
    from dicomnode import logs

    settings = load(path)
    logs.configure(settings.logging.level, process)
    return settings


def find_peer(text: str, path: Path) -> "Outbound":
    """A destination by its name in the file at `path`, or as AET@HOST:PORT. Raises UsageError, ConfigurationError."""
    from dicomnode.peers import find

    return find(text, path)


def table(columns: list[str], rows: list[list[str]]) -> None:
    """Print a table for people."""
    from rich.console import Console
    from rich.table import Table

    made = Table(show_edge=False, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 200, markup=False, emoji=False).print(made)
