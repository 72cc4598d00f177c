"""The received images of a study on their way to one destination, many on one association.

The state stands in the catalogue, image by image, as for results (`delivery`): what was stored is not sent again, what
is refused for good becomes a dead letter, and the images stay in the spool until all of them have arrived. An image
that comes twice is the same SOP instance.
"""

import logging
import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from dicomnode import logs
from dicomnode.errors import AssociationRejectedError, DicomnodeError, PeerError, PeerRejectedError
from dicomnode.network.association import Sent
from dicomnode.outbound.destinations import Destination
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Delivery
from dicomnode.words.numerals import plural

log = logging.getLogger(__name__)

#: So many images at most are still sent after a newer generation of the study has settled.
_BATCH = 100


def forward(peer: Destination, catalog: Catalog, study_uid: str, generation: int) -> str | None:
    """Send the images that the destination has not yet accepted.

    Returns None when all is settled, else the passing failure.
    """
    for batch in _batches(catalog, study_uid, generation, peer.name):
        waiting = batch
        while waiting and catalog.may_send(waiting[0]):
            try:
                waiting = _send(peer, catalog, waiting)
            except PeerError as e:
                log.warning("%s did not accept all images of study %s, will retry: %s", peer.name, study_uid, e)
                return str(e)
    return None


def _batches(catalog: Catalog, study_uid: str, generation: int, destination: str) -> Iterator[list[Delivery]]:
    """Yield what is pending, by SOP class: where the peer takes none of a class, one association is enough to know."""
    pending = [
        d
        for d in catalog.deliveries(study_uid, generation)
        if d.destination == destination and d.kind == "originals" and d.state == "pending"
    ]
    for _, same in groupby(sorted(pending, key=lambda d: d.sop_class_uid), key=lambda d: d.sop_class_uid):
        one_class = list(same)
        for start in range(0, len(one_class), _BATCH):
            yield one_class[start : start + _BATCH]


def unexpected(error: Exception) -> str:
    """Say of a failure that nobody foresaw what a person may read: its text may quote what was sent or answered."""
    return f"sending failed ({type(error).__name__}: see the worker's log), will retry"


def _send(peer: Destination, catalog: Catalog, waiting: list[Delivery]) -> list[Delivery]:
    """Send images on one association, as far as it goes. Returns those that are still to be sent after a refusal.

    Raises:
        PeerError: a failure in passing; the first image that was not stored bears its text.
    """
    done: list[Delivery] = []

    def stored(_path: Path, sent: Sent) -> None:
        image = waiting[len(done)]
        catalog.note_attempt(image, "delivered", status=sent.status, text=sent.outcome, now=time.time())
        done.append(image)

    try:
        peer.send([Path(image.path) for image in waiting], stored)
    except AssociationRejectedError as e:
        for image in waiting[len(done) :]:
            catalog.note_attempt(image, "rejected", text=str(e), now=time.time())
        left = len(waiting) - len(done)
        log.error(
            "%s permanently refuses %s of study %s: %s", peer.name, plural(left, "image"), waiting[0].study_uid, e
        )
        return []
    except PeerRejectedError as e:
        catalog.note_attempt(waiting[len(done)], "rejected", text=str(e), now=time.time())
        log.error("%s permanently refuses an image of study %s: %s", peer.name, waiting[0].study_uid, e)
        return waiting[len(done) + 1 :]
    except PeerError as e:
        catalog.note_attempt(waiting[len(done)], "pending", text=str(e), now=time.time())
        raise
    except DicomnodeError:
        raise
    except Exception as e:  # noqa: BLE001  (whatever a peer's answer provoked: told, and tried again)
        logs.log_unexpected(log, e, "%s: sending an image of study %s failed", peer.name, waiting[0].study_uid)
        if len(done) < len(waiting):
            catalog.note_attempt(waiting[len(done)], "pending", text=unexpected(e), now=time.time())
        raise PeerError(unexpected(e)) from None
    log.info("%s stored %s of study %s", peer.name, plural(len(done), "image"), waiting[0].study_uid)
    return []
