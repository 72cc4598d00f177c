"""A changed configuration for a running node: who is asked to take it up, and what can be taken up."""

import logging
import os
import re
import signal
from pathlib import Path

from dicomnode import config as configuration
from dicomnode.config import Config
from dicomnode.errors import ConfigurationError, UsageError
from dicomnode.files import write_whole
from dicomnode.store import process_names

log = logging.getLogger(__name__)


def note_process(config: Config) -> None:
    """Note this process as the one that `dicomnode reload` asks."""
    write_whole(config.storage.state / process_names.SERVE, process_names.current() + "\n")


def ask(config: Config) -> int:
    """Ask the running node to read its configuration anew; returns its process number.

    Raises:
        UsageError: no node runs on this machine with this configuration.
    """
    try:
        name = (config.storage.state / process_names.SERVE).read_text("utf-8").strip()
    except OSError:
        name = ""
    found = re.search(r",(\d+),\d+$", name)
    if found is None or not process_names.is_alive(name):
        raise UsageError(f"no node is running here with storage.state = {config.storage.state}: start it with `serve`")
    try:
        os.kill(int(found[1]), signal.SIGHUP)
    except PermissionError:
        raise UsageError(f"process {found[1]} is another user's: run this as the node's user") from None
    return int(found[1])


def changed(config: Config, path: Path) -> Config | None:
    """Return the configuration as the file has it now; None, with the reason in the log: it cannot be taken up."""
    try:
        new = configuration.load(path)
    except ConfigurationError as error:
        log.error("not reloaded: %s", error)
        return None
    if new == config:
        log.info("not reloaded: %s has not changed", path)
        return None
    if (new.storage.spool, new.storage.results, new.storage.state, new.storage.database_url) != (
        config.storage.spool,
        config.storage.results,
        config.storage.state,
        config.storage.database_url,
    ):
        log.error("not reloaded: the folders and the database of [storage] change by a restart only")
        return None
    return new
