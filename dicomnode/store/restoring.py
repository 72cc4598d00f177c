"""The mark that a restore has begun and not ended: until it ends, no node runs on what is there."""

import json
from pathlib import Path

from dicomnode.errors import SpoolError
from dicomnode.files import write_whole

MARK = "restoring.json"


def begin(state: Path, backup: str) -> None:
    """Note that the backup of this digest is being restored into the node of `storage.state`. Raises OSError."""
    write_whole(state / MARK, json.dumps({"backup": backup}))


def begun(state: Path) -> str | None:
    """Return the digest of the backup whose restore has begun and not ended; "" where the mark cannot be read."""
    try:
        return str(json.loads((state / MARK).read_text("utf-8"))["backup"])
    except OSError:
        return None  # there is none; a folder that cannot be read is told where it is used
    except (ValueError, KeyError, TypeError):
        return ""


def end(state: Path) -> None:
    """Take the mark away. Raises OSError."""
    (state / MARK).unlink(missing_ok=True)


def refuse(state: Path) -> None:
    """Raise SpoolError where a restore was cut short: a node would take what is there for all there is."""
    if begun(state) is not None:
        raise SpoolError(
            f"{state / MARK}: a restore into this node was cut short; run `dicomnode restore` again, with the same "
            "backup, and start the node when it has ended"
        )
