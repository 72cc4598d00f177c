"""Programs that may use DICOMweb, as the command line lets them in: each has a token, shown once.

The node keeps the SHA-256 of it. A token is 32 random bytes: nobody guesses it, so no hash that is slow on purpose is
needed, and a viewer that asks for a thousand frames is not slowed down.
"""

import hashlib
import secrets
from typing import Final

from dicomnode.config import Config
from dicomnode.config.fields import ae_title
from dicomnode.errors import UsageError
from dicomnode.operations.audited import note_command
from dicomnode.operations.console_users import NAME, opened
from dicomnode.store.catalog.console import ConsoleToken

_BYTES: Final = 32


def token_hash(token: str) -> str:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def tokens(config: Config) -> list[ConsoleToken]:
    """Return all programs by name. Raises SpoolError."""
    with opened(config) as catalog:
        return catalog.console_tokens()


def add(config: Config, name: str, role: str, calling_ae: str, now: float) -> str:
    """Let a program in, and return its token.

    Args:
        config: the node's.
        name: the program's.
        role: what it may see.
        calling_ae: as whom it may store; "": it may not.
        now: the time.

    Raises:
        UsageError: the name, the role or the AE title is none, or the name is taken.
        SpoolError: the catalogue failed.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name of a program: letters, digits and . _ @ - (64 at most)")
    if role == "researcher":
        raise UsageError("a researcher sees pseudonyms only, and DICOMweb has none: give reader")
    try:
        calling_ae = ae_title(calling_ae) if calling_ae else ""
    except ValueError:
        raise UsageError(f"{calling_ae!r} is not an AE title: 1 to 16 plain characters") from None
    callers = config.node.callers
    if calling_ae and callers and not any(one.ae_title in ("*", calling_ae) for one in callers):
        raise UsageError(f"node.callers has no {calling_ae}: what it stores would be refused")
    token = secrets.token_urlsafe(_BYTES)
    with opened(config) as catalog, catalog.together() as one:  # what is refused is not noted as done
        details = {"name": name, "role": role, "stores as": calling_ae}
        note_command(config, "console token add", details, catalog=one)
        if not one.add_console_token(name, token_hash(token), role, calling_ae, now):
            raise UsageError(f"there is a token {name!r} already: remove it first")
    return token


def remove(config: Config, name: str) -> None:
    """Let a program in no more. Raises UsageError: there is none of this name; SpoolError."""
    with opened(config) as catalog, catalog.together() as one:
        note_command(config, "console token remove", {"name": name}, catalog=one)
        if not one.remove_console_token(name):
            raise UsageError(f"there is no token {name!r}: see `dicomnode console token list`")
