"""Passwords of local users: Argon2id (RFC 9106), with the parameters of argon2-cffi's second recommendation there."""

import threading
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from dicomnode.errors import UsageError
from dicomnode.words.numerals import plural

SHORTEST: Final = 12
#: A longer one costs time to hash, and is nobody's.
LONGEST: Final = 256
#: Each takes 64 MiB for a tenth of a second.
_AT_ONCE = 2
_WAIT_S = 10.0

_hasher = PasswordHasher()
_turn = threading.BoundedSemaphore(_AT_ONCE)
#: Compared with where there is no such user: the answer takes as long.
_nobody: list[str] = []


class BusyError(Exception):
    """Too many passwords are being compared at once."""


def hashed(password: str) -> str:
    """Return what is kept of a password.

    Raises:
        UsageError: it is too short or too long.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise UsageError(f"the password has {plural(len(password), 'character')}: give {SHORTEST} to {LONGEST}")
    return _hasher.hash(password)


def matches(kept: str | None, password: str) -> bool:
    """Whether this is the password of which `kept` is the hash; None: of nobody's.

    Raises:
        BusyError: too many others are being compared.
    """
    if not _turn.acquire(timeout=_WAIT_S):
        raise BusyError
    try:
        if not _nobody:
            _nobody.append(_hasher.hash("nobody's password"))
        return _hasher.verify(kept or _nobody[0], password[:LONGEST]) and kept is not None
    except (VerificationError, InvalidHashError):
        return False
    finally:
        _turn.release()
