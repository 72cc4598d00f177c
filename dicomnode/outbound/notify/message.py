"""What is told: an event becomes a subject, a text and fields. No patient data, unless the configuration asks."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from string import Template

from dicomnode.config import NotifyTable
from dicomnode.config.notify import NODE_SUBJECT, NODE_TEMPLATE, OVER_SUBJECT
from dicomnode.config.notify import Event as Kind
from dicomnode.store.records import Event

#: The words for states of jobs. A study that is committed was delivered too.
_KINDS: Mapping[str, Kind] = {
    "delivered": "delivered",
    "committed": "delivered",
    "failed": "failed",
    "refused": "refused",
    "held": "held",
    "expiring": "expiring",
    "certificate": "certificate",
    "alert": "alert",
    "alert-over": "alert",
}


@dataclass(frozen=True)
class Message:
    """One message. `key` is the same at each attempt, and differs between events and receivers.

    `fields` are what a program may want to know: all of `config.notify.SAFE_NAMES`.
    """

    key: str
    subject: str
    text: str
    fields: Mapping[str, str]


def kind(event: Event) -> Kind:
    """Return the word by which [[notify]] asks for it."""
    return _KINDS[event.state]


def message(event: Event, to: NotifyTable, node: str, patient: Mapping[str, str]) -> Message:
    """Return the message to one receiver.

    Args:
        event: what is told.
        to: the receiver.
        node: the node's AE title.
        patient: values of the attributes that the texts name (`NotifyTable.patient_names`), "" where they are absent.
    """
    fields = {
        "event": event.state if event.state == "alert-over" else kind(event),
        "study_uid": event.study_uid,
        "generation": str(event.generation),
        "reason": event.reason or "",
        "node": node,
        "at": datetime.fromtimestamp(event.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "id": event.event_id,
    }
    named = {**fields, **patient}
    of_node = OVER_SUBJECT if event.state == "alert-over" else NODE_SUBJECT
    texts = (to.subject, to.template) if event.study_uid else (of_node, NODE_TEMPLATE)
    # A line break in an e-mail's subject would begin a new header.
    subject = " ".join(Template(texts[0]).substitute(named).split())
    return Message(f"{event.event_id}.{to.name}", subject, Template(texts[1]).substitute(named), fields)
