"""Studies that take their analysis with them, or the worker."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from dicomnode.analysis.volume.size import too_large
from dicomnode.files import write_whole
from dicomnode.limits import boot_id, oom_kills
from dicomnode.store.results_folder import ATTEMPT
from dicomnode.words.numerals import plural

#: So often the analysis may end without an answer, or take the worker with it for want of memory.
TRIES = 2


class Attempt:
    """A note that an analysis has begun, kept until it ends: by it a study is known that takes the worker with it.

    A worker that ended otherwise (a kill, a power cut, a restart) says nothing of the study: only what the kernel has
    ended for want of memory since then counts.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / ATTEMPT

    def begin(self) -> None:
        """Note it. Raises RefusedError ("too-large"): the kernel has ended the worker at this study too often."""
        lost, before = 0, self._read()
        kills, boot = oom_kills(), boot_id()
        if before:
            lost = int(before["lost"]) + (before["boot"] == boot and before["kills"] < kills)
        if lost >= TRIES:
            self.end()
            raise too_large(f"its analysis has ended the worker {plural(lost, 'time')} for want of memory")
        write_whole(self._path, json.dumps({"lost": lost, "kills": kills, "boot": boot}))

    def end(self) -> None:
        """Forget it: the analysis has come to an end."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(self._path.read_text("utf-8"))
            return {"lost": int(found["lost"]), "kills": int(found["kills"]), "boot": found["boot"]}
        return {}
