"""Options and helpers shared by several commands."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dicomnode.config import Config
    from dicomnode.outbound.destinations import Destination

DEFAULT_CONFIG = Path("ae_config.toml")
#: Columns of a terminal with room for a UID (64) and the columns beside it.
_WIDE = 150
ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="Configuration file.")]
TlsOption = Annotated[bool, typer.Option("--tls", help="Call AET@HOST:PORT by TLS, with the files of [tls].")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def load(path: Path) -> "Config":
    """Load the configuration. Raises ConfigurationError."""
    from dicomnode import config

    return config.load(path)


def configure(path: Path, process: str) -> "Config":
    """Load the configuration and start logging, for a long-running process called `process`."""
    from dicomnode import logs

    config = load(path)
    logs.configure(config.logging.level, process, config.logging.format, config.kept_lines)
    return config


def find_peer(text: str, path: Path, *, tls: bool = False) -> "Destination":
    """Find a destination by its configured name or as AET@HOST:PORT. Raises UsageError, ConfigurationError."""
    from dicomnode.outbound.peers import find

    return find(text, path, tls=tls)


def table(columns: list[str], rows: list[list[str]], red: Sequence[bool] = ()) -> None:
    """Print a table; on a terminal the rows that `red` marks, one entry for each, are in that colour.

    Control characters, which a peer may have sent, are escaped.
    """
    from rich.console import Console
    from rich.table import Table

    from dicomnode import logs

    console = Console(width=None if sys.stdout.isatty() else 200, markup=False, emoji=False)
    made = Table(show_edge=False, pad_edge=False)
    for number, column in enumerate(columns):
        # The first column is usually a UID, which people copy: keep it on one line where there is room.
        made.add_column(column, overflow="fold", no_wrap=number == 0 and console.width >= _WIDE)
    for row, is_red in zip(rows, red or [False] * len(rows), strict=True):
        cells = ("\n".join(map(logs.escaped, cell.split("\n"))) for cell in row)
        made.add_row(*cells, style="bold red" if is_red else None)
    console.print(made)
