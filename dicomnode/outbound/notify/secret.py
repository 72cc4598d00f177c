"""The password or signing key of a receiver: from a file or from the environment, never from the configuration."""

import os

from dicomnode.config import NotifyTable
from dicomnode.errors import ConfigurationError


def secret(to: NotifyTable) -> bytes:
    """Read it anew each time, so that a key that was changed needs no new start.

    Raises:
        ConfigurationError: it is not there, or empty.
    """
    if to.secret_file is not None:
        try:
            found = to.secret_file.read_bytes().strip()
        except OSError as e:
            raise ConfigurationError(f"notify {to.name!r}: {to.secret_file} cannot be read ({e.strerror})") from None
        where = str(to.secret_file)
    else:
        found = os.environ.get(to.secret_env, "").strip().encode()
        where = f"the environment variable {to.secret_env}"
    if not found:
        raise ConfigurationError(f"notify {to.name!r}: {where} is empty: put the key or password there")
    return found
