"""Users of the console, as the command line makes and removes them."""

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager

from dicomnode.config import Config
from dicomnode.errors import UsageError
from dicomnode.files import make_folder
from dicomnode.operations import passwords
from dicomnode.operations.audited import note_command
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.console import ConsoleUser

#: What a name may look like: it stands in the audit trail and in log lines.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


def users(config: Config) -> list[ConsoleUser]:
    """Return all users by name. Raises SpoolError."""
    with opened(config) as catalog:
        return catalog.console_users()


def add(config: Config, name: str, role: str, password: str, now: float) -> None:
    """Make a user.

    Raises:
        UsageError: the name or the password is not one, or the name is taken.
        SpoolError: the catalogue failed.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name of a user: letters, digits and . _ @ - (64 at most)")
    kept = passwords.hashed(password)
    with opened(config) as catalog:
        if catalog.console_user(name) is not None:
            raise _taken(name)
        note_command(config, "console user add", {"name": name, "role": role}, catalog=catalog)
        if not catalog.add_console_user(name, role, kept, now):
            raise _taken(name)


def change_password(config: Config, name: str, password: str, now: float) -> None:
    """Give a user another password, and end the sessions. Raises UsageError, SpoolError as `add`."""
    kept = passwords.hashed(password)
    with opened(config) as catalog:
        if catalog.console_user(name) is None:
            raise _unknown(name)
        note_command(config, "console user password", {"name": name}, catalog=catalog)
        if not catalog.set_console_password(name, kept, now):
            raise _unknown(name)


def remove(config: Config, name: str) -> None:
    """Remove a user, and end the sessions. Raises UsageError: there is none; SpoolError."""
    with opened(config) as catalog:
        if catalog.console_user(name) is None:
            raise _unknown(name)
        note_command(config, "console user remove", {"name": name}, catalog=catalog)
        if not catalog.remove_console_user(name):
            raise _unknown(name)


def _taken(name: str) -> UsageError:
    return UsageError(f"there is a user {name!r} already: remove it first, or change its password")


def _unknown(name: str) -> UsageError:
    return UsageError(f"there is no user {name!r}: see `dicomnode console user list`")


@contextmanager
def opened(config: Config) -> Iterator[Catalog]:
    """Yield the catalogue, to be written. Raises SpoolError."""
    if not config.storage.database_url:
        make_folder(config.storage.state)  # users may be made before the node first runs
    with closing(Catalog.open(config.catalog_url, config.storage.state)) as catalog:
        yield catalog
