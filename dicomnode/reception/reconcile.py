"""After a crash: what the spool holds and what the catalogue knows, compared in both directions.

A file that the catalogue does not know was complete when its receiver died before it was recorded, or its row was
among the last that a power cut has taken (`recording`). It is recorded as if it had come now. A row whose file is gone
cannot be mended here: it is counted and named, and a resend of the image puts the file back. A file that a decision has
put out of use (`corrections`) moves to where such files lie.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dicomnode import logs
from dicomnode.reception.corrections import put_away
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance
from dicomnode.store.replaced import Replaced
from dicomnode.store.sameness import same_content
from dicomnode.store.spool import Spool
from dicomnode.words.numerals import plural

log = logging.getLogger(__name__)

#: A younger file may be on its way from the rename to the catalogue.
_SETTLED_S = 5.0
_PAGE = 1000


@dataclass(frozen=True)
class Reconciled:
    """What was found: files now recorded, files that could not be (in quarantine), rows without their file."""

    adopted: int
    quarantined: int
    missing: tuple[str, ...]

    @property
    def trouble(self) -> bool:
        """Whether there was anything to find."""
        return bool(self.adopted or self.quarantined or self.missing)

    def __str__(self) -> str:
        return (
            f"recorded {plural(self.adopted, 'complete file')} missing from the catalogue, quarantined "
            f"{plural(self.quarantined, 'unusable file')}, "
            f"{plural(len(self.missing), 'recorded image has', 'recorded images have')} no file"
        )


def reconcile(spool: Spool, catalog: Catalog, read: Callable[[Path], Instance]) -> Reconciled:
    """Compare, and mend what can be mended. `read` makes an instance of a spooled file, or raises ValueError."""
    missing = tuple(i.sop_instance_uid for i in all_instances(catalog) if not Path(i.path).is_file())
    adopted, quarantined = restore(spool, catalog, read)
    for uid in missing[:20]:
        log.error("%s is recorded but missing from the spool: send it again", logs.uid(uid))
    return Reconciled(adopted, quarantined, missing)


def restore(spool: Spool, catalog: Catalog, read: Callable[[Path], Instance]) -> tuple[int, int]:
    """Record the complete files that the catalogue does not know: (how many, how many went to quarantine instead)."""
    found: Counter[str] = Counter()
    for folder in spool.study_folders():
        known = {Path(i.path) for i in catalog.instances(folder.name)}
        unknown = (path for path in sorted(folder.glob("*/*.dcm")) if path not in known)
        found.update(_adopt(spool, catalog, path, read) for path in unknown if not _is_on_its_way(path))
    return found["adopted"], found["bad"]


def _is_on_its_way(path: Path) -> bool:
    # What was written before this machine was started is on nobody's way, however soon after a power cut this is.
    age = time.time() - path.stat().st_mtime
    return 0 <= age < min(_SETTLED_S, time.clock_gettime(time.CLOCK_BOOTTIME))


def all_instances(catalog: Catalog) -> Iterator[Instance]:
    """Every instance of the catalogue, page by page."""
    after = ""
    while page := catalog.instances_after(after, _PAGE):
        yield from page
        after = page[-1].sop_instance_uid


def _is_replaced(catalog: Catalog, instance: Instance, path: Path) -> bool:
    """Whether a decision has put this version out of use, and a crash has left its file where it was.

    What is younger than the decision has come again since.
    """
    decided = [c.at for c in catalog.corrections_of(instance.sop_instance_uid) if c.sha256 == instance.sha256]
    return bool(decided) and path.stat().st_mtime <= max(decided)


def _adopt(
    spool: Spool, catalog: Catalog, path: Path, read: Callable[[Path], Instance]
) -> Literal["adopted", "known", "bad"]:
    try:
        instance = read(path)
        instance = replace(instance, patient_hash=catalog.patient_key.keyed(instance.patient_hash))
    except ValueError as error:
        code, text = "unreadable-header", str(error)
    else:
        held = catalog.held_instance(instance.sop_instance_uid)
        if held is not None and Path(held.path) == path:
            return "known"  # recorded in between, or under a name that is no plain UID
        if _is_replaced(catalog, instance, path):
            put_away(spool, catalog, [replace(instance, path=str(path))], time.time())
            return "known"
        if Replaced(spool).has_brought_in(path, instance.sha256):
            spool.discard(path)  # an `accept` was cut short before it had decided
            return "known"
        if catalog.record(instance) != "conflict":
            return "adopted"
        if held is not None and same_content(Path(held.path), path):
            spool.discard(path)  # a resend in another encoding
            return "known"
        catalog.note_conflict(instance)
        code, text = (
            "uid-taken",
            f"SOP Instance UID {instance.sop_instance_uid} is already stored with different content",
        )
    log.warning("%s: %s; quarantined", path.name, text)
    spool.quarantine(b"", path.read_bytes(), code, text, time.time())
    spool.discard(path)
    return "bad"
