"""What a receiver notes for the audit trail outside the catalogue's transactions: refusals, queries, retrievals."""

import time
from collections.abc import Sequence
from itertools import groupby
from typing import cast

from pynetdicom import evt
from pynetdicom.dimse_primitives import C_FIND

from dicomnode import logs
from dicomnode.audit import messages, trail
from dicomnode.audit.journal import Refusals
from dicomnode.audit.messages import AuditPeer, AuditStudy
from dicomnode.metrics import counters
from dicomnode.network import tls
from dicomnode.reception import refusals
from dicomnode.reception.holdings import Held
from dicomnode.store.catalog.audit import read_patient

_told: Refusals | None = None


def begin(told: Refusals | None) -> None:
    """Set what says which refusals are told by themselves."""
    global _told  # noqa: PLW0603
    _told = told
    tls.tell_failures(_failed)


def _failed(address: str, why: str) -> None:
    counters.association_refused("TLS")
    refused("", address, f"TLS: {why}")


def refused(calling_ae: str, address: str, why: str) -> None:
    """Note that an association was refused; a caller that tries a thousand times is counted."""
    refusals.counts.count(logs.printable(calling_ae.strip()), address, why)
    if trail.source() is not None and (_told is None or _told.is_told()):
        trail.note(messages.refused, time.time(), AuditPeer(calling_ae, address), why)


def queried(event: evt.Event) -> None:
    """Note a C-FIND that a caller asks of the node, before it is answered."""
    if trail.source() is None:
        return
    sop_class, syntax = str(event.context.abstract_syntax), str(event.context.transfer_syntax)
    asked = cast(C_FIND, event.request).Identifier
    content = b"" if asked is None else asked.getvalue()
    trail.note(messages.query, time.time(), _peer(event), sop_class, content, syntax, incoming=True)


def retrieved(
    event: evt.Event, held: Sequence[Held], to: AuditPeer | None = None, *, ended: bool, failed: bool = False
) -> None:
    """Note that objects are about to be sent to who retrieves them, or that this has `ended`.

    Args:
        event: of the C-GET or C-MOVE.
        held: the objects.
        to: where a C-MOVE sends them; None: to the caller.
        ended: whether all were tried.
        failed: whether some were not sent.
    """
    if trail.source() is None:
        return
    peer, now = to or _peer(event), time.time()
    for study_uid, of_study in groupby(sorted(held, key=lambda h: h.study_uid), key=lambda h: h.study_uid):
        objects = list(of_study)
        classes: dict[str, int] = {}
        for one in objects:
            classes[one.sop_class_uid] = classes.get(one.sop_class_uid, 0) + 1
        whose = read_patient(objects[0].path)
        studies = [AuditStudy(study_uid, classes, whose.accession_number)]
        pulled = to is None
        if ended:
            outcome = messages.MINOR if failed else messages.SUCCESS
            trail.note(
                messages.transferred, now, peer, studies, whose.patient, incoming=False, pulled=pulled, outcome=outcome
            )
        else:
            trail.note(messages.begin_transferring, now, peer, studies, whose.patient, incoming=False, pulled=pulled)


def _peer(event: evt.Event) -> AuditPeer:
    requestor = event.assoc.requestor
    return AuditPeer(requestor.ae_title, requestor.address)
