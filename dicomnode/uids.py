"""What a UID is (PS3.5 section 9.1): for names of files, log lines and whatever a peer sends. Pure."""

import re

#: Leading zeros in a component are against the standard, and taken: many devices write them.
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_LONGEST = 64


def is_uid(text: str) -> bool:
    """Say whether this is digits and dots of at most 64 characters."""
    return len(text) <= _LONGEST and _UID.fullmatch(text) is not None
