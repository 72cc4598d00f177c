"""Digests of the volumes that a run reads, in its record: whoever repeats it knows that the images are the same.

Hashing a registry's volumes takes as long as reading them; a file whose size and time have not changed since is not
read again.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from dicomnode.errors import UsageError
from dicomnode.files import sha256_of
from training.files import digest, write_json
from training.progress_type import ProgressCallback

NAME = "volumes.json"


def record(run: Path, registry: Path, volumes: Sequence[str], progress: ProgressCallback) -> dict[str, object]:
    """Hash the volumes of a run's scans into `volumes.json`; those hashed before are held against it.

    Args:
        run: the run folder.
        registry: that the volumes lie in.
        volumes: their paths in it; "" where a scan has none.
        progress: told about each file.

    Returns:
        How many there are, their bytes, and one SHA-256 over names and digests: for `run.json`.

    Raises:
        UsageError: a volume is gone, or another than when the run began.
    """
    path = run / NAME
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    names = sorted({name for name in volumes if name})
    found: dict[str, dict[str, object]] = {}
    for done, name in enumerate(names):
        progress("Hashing volumes", done, len(names))
        file = registry / name
        try:
            state = file.stat()
        except OSError as error:
            raise UsageError(
                f"{file}: {error.strerror}: restore the volume, or begin a new run without the scan"
            ) from None
        before = known.get(name)
        if before is not None and (before["bytes"], before["time_ns"]) == (state.st_size, state.st_mtime_ns):
            found[name] = before
            continue
        found[name] = {"sha256": sha256_of(file), "bytes": state.st_size, "time_ns": state.st_mtime_ns}
        if before is not None and before["sha256"] != found[name]["sha256"]:
            raise UsageError(
                f"{file} is another volume than when the run began: restore it, or choose a new run folder"
            )
    progress("Hashing volumes", len(names), len(names))
    write_json(path, found)
    size = sum(int(str(one["bytes"])) for one in found.values())
    return {"count": len(found), "bytes": size, "sha256": digest([[n, one["sha256"]] for n, one in found.items()])}
