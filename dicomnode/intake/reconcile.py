"""After a crash: what the spool holds and what the catalogue knows, compared in both directions.

A file that the catalogue does not know was complete when its receiver died, but its sender was never told so. It is
recorded as if it had come now: the sender's second attempt then finds it «same». A row whose file is gone cannot be
mended here: it is counted and named, and a resend of the image puts the file back.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dicomnode.intake.catalog import Catalog
from dicomnode.intake.records import Instance
from dicomnode.intake.spool import Spool

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
            f"{self.adopted} complete files were not recorded and are now, {self.quarantined} unusable ones went to "
            f"quarantine, {len(self.missing)} recorded images have no file"
        )


def reconcile(spool: Spool, catalog: Catalog, read: Callable[[Path], Instance]) -> Reconciled:
    """Compare, and mend what can be mended. `read` makes an instance of a spooled file, or raises ValueError."""
    missing = tuple(i.sop_instance_uid for i in all_instances(catalog) if not Path(i.path).is_file())
    found: Counter[str] = Counter()
    for folder in spool.study_folders():
        files = {p for p in folder.glob("*/*.dcm") if time.time() - p.stat().st_mtime > _SETTLED_S}
        known = {Path(i.path) for i in catalog.instances(folder.name)} if files else set()
        found.update(_adopt(spool, catalog, path, read) for path in sorted(files - known))
    for uid in missing[:20]:
        log.error("%s is recorded, but its file is gone from the spool: have it sent again", uid)
    return Reconciled(found["adopted"], found["bad"], missing)


def all_instances(catalog: Catalog) -> Iterator[Instance]:
    """Every instance of the catalogue, page by page."""
    after = ""
    while page := catalog.instances_after(after, _PAGE):
        yield from page
        after = page[-1].sop_instance_uid


def _adopt(
    spool: Spool, catalog: Catalog, path: Path, read: Callable[[Path], Instance]
) -> Literal["adopted", "known", "bad"]:
    try:
        instance = read(path)
    except ValueError as error:
        code, text = "unreadable-header", str(error)
    else:
        held = catalog.held_instance(instance.sop_instance_uid)
        if held is not None and Path(held.path) == path:
            return "known"  # recorded in between, or under a name that is no plain UID
        if catalog.record(instance) != "conflict":
            return "adopted"
        catalog.note_conflict(instance)
        code, text = "uid-taken", f"SOP Instance UID {instance.sop_instance_uid} is stored with other content"
    log.warning("%s: %s; moved to the quarantine", path.name, text)
    spool.quarantine(b"", path.read_bytes(), code, text, time.time())
    spool.discard(path)
    return "bad"
