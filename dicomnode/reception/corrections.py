"""Another version of an object that is here: when it may replace the first, and how.

Replacing is decided by a caller's `on_conflict = "newest"`, or by a person who has accepted a correction of the study
(`jobs accept`): for a while, more of the same correction is taken as it comes, that is, objects that differ in no other
attributes and name the same patient. An object never leaves its study so: that takes a person each time.

The order: the new version is on the disk, the catalogue decides, then the old one moves to `replaced/`. A crash in
between leaves a file that `reconcile` knows by the decision.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from dicomnode import logs
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.differences import differences
from dicomnode.store.records import CorrectionAction, Instance
from dicomnode.store.replaced import Replaced
from dicomnode.store.spool import Spool

log = logging.getLogger(__name__)


def replace_known(spool: Spool, catalog: Catalog, new: Instance, caller: str) -> bool:
    """Let a version whose file is safe replace the recorded one, if a decision says so. Returns whether it did.

    Args:
        spool: where both lie.
        catalog: the catalogue.
        new: the version that has come.
        caller: who sends it, if it may replace; else "".

    Raises:
        SpoolError: the catalogue or the spool failed.
    """
    now = time.time()
    held = catalog.held_instance(new.sop_instance_uid)
    if held is None or held.study_uid != new.study_uid:
        return False
    who = caller
    action: CorrectionAction = "newest"
    if not who:
        accepted = catalog.acceptance(new.study_uid, now)
        if accepted is None or accepted.patient_hash != new.patient_hash:
            return False
        if decided_against(catalog, new, since=accepted.at):
            return False  # a sender that does not know of the correction turns nothing back
        found = differences(Path(held.path), Path(new.path))
        if not {one.attribute for one in found} <= accepted.attributes:
            return False
        who, action = accepted.who, "accepted"
    old = catalog.replace_instances([new], action, who, now=now, touch=True)
    put_away(spool, catalog, old, now)
    if old:
        Replaced(spool).forget(new.sha256)  # if it was refused before
        log.info("%s replaced by a newer version from %s", logs.uid(new.sop_instance_uid), who)
    # Housekeeping may have moved the study away in between: then it is refused, and taken when it comes again.
    return bool(old) and Path(new.path).exists()


def decided_against(catalog: Catalog, new: Instance, *, since: float) -> bool:
    """Whether this very version was replaced or thrown away by a decision of that time or later."""
    return any(c.sha256 == new.sha256 and c.at >= since for c in catalog.corrections_of(new.sop_instance_uid))


def put_away(spool: Spool, catalog: Catalog, gone: Sequence[Instance], now: float) -> None:
    """Move the files of versions that are no longer used out of their study's folder; not what has come again since.

    Raises:
        SpoolError: the catalogue failed, disk full, no permission.
    """
    area = Replaced(spool)
    catalog.move_unused(gone, lambda one: area.put(Path(one.path), one.study_uid, one.sha256, now))
