"""UIDs as peers send them (PS3.5 section 9.1), and words of a peer as a log may show them. Pure."""

import re

#: Leading zeros in a component are against the standard, and taken: many devices write them.
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_LONGEST_UID = 64


def is_uid(text: str) -> bool:
    """Say whether this is digits and dots of at most 64 characters."""
    return 0 < len(text) <= _LONGEST_UID and _UID.fullmatch(text) is not None


def shown(uid: str) -> str:
    """Return a UID for a log line or an error's text.

    What is none is not quoted: it may be a patient's name, a line of its own, or 70 kB.
    """
    return uid if is_uid(uid) else f"(no UID, {len(uid)} characters)"


def printable(text: str, longest: int = 64) -> str:
    """Return words of a peer (an AE title) for a log line: one line of ASCII, escaped and cut."""
    cut = text if len(text) <= longest else text[:longest] + "…"
    return "".join(c if " " <= c <= "~" or c == "…" else f"\\x{ord(c):02x}" for c in cut)
