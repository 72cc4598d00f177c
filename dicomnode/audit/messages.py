"""Audit messages as XML (PS3.15 A.5.1, which extends RFC 3881), one builder for each event of PS3.15 A.5.3.

Patient IDs stand in them on purpose. They never go to the ordinary log.
"""

import base64
import os
import pwd
import re
import socket
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal

#: EventOutcomeIndicator, PS3.15 A.5.1.
Outcome = Literal["0", "4", "8", "12"]
SUCCESS: Final[Outcome] = "0"
MINOR: Final[Outcome] = "4"
SERIOUS: Final[Outcome] = "8"
Action = Literal["C", "R", "U", "D", "E"]

#: Longer values are cut: characters. A message stays below the 8 kB that every syslog server takes.
LONGEST = 256
_MOST_CLASSES = 16
_LONGEST_QUERY = 2_048
# XML 1.0, production 2: what a document may hold.
_NO_CHARACTER = re.compile("[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SPACES = re.compile(r"[\s\x85\u2028\u2029]+")

#: EventIDs of DCM (PS3.16, CID 400).
EVENTS: Final[Mapping[str, str]] = {
    "110100": "Application Activity",
    "110102": "Begin Transferring DICOM Instances",
    "110103": "DICOM Instances Accessed",
    "110104": "DICOM Instances Transferred",
    "110105": "DICOM Study Deleted",
    "110106": "Export",
    "110112": "Query",
    "110113": "Security Alert",
    "110114": "User Authentication",
}
ACTIVITY, BEGIN, ACCESSED, TRANSFERRED, DELETED, EXPORT, QUERY, ALERT, AUTHENTICATION = EVENTS
#: EventTypeCodes (PS3.16, CID 401 and 403).
TYPES: Final[Mapping[str, str]] = {
    "110120": "Application Start",
    "110121": "Application Stop",
    "110122": "Login",
    "110123": "Logout",
    "110126": "Node Authentication",
    "110129": "Security Configuration",
    "110131": "Software Configuration",
    "110132": "Use of Restricted Function",
    "110133": "Audit Recording Stopped",
    "110134": "Audit Recording Started",
}
START, STOP, LOGIN, LOGOUT, NODE_AUTHENTICATION, SECURITY_CONFIGURATION, SOFTWARE_CONFIGURATION, *_LAST = TYPES
RESTRICTED, RECORDING_STOPPED, RECORDING_STARTED = _LAST
#: RoleIDCodes (PS3.16, CID 402).
_APPLICATION, _LAUNCHER = ("110150", "Application"), ("110151", "Application Launcher")
_DESTINATION, _SOURCE = ("110152", "Destination Role ID"), ("110153", "Source Role ID")
_MEDIA = ("110154", "Destination Media")


@dataclass(frozen=True)
class AuditSource:
    """Who reports: PS3.15 A.5.2.4. `site` may be empty."""

    source_id: str
    ae_title: str
    site: str = ""


@dataclass(frozen=True)
class AuditPeer:
    """The other side of an association: its AE title, or a URL, and its host name or address."""

    ae_title: str
    address: str


@dataclass(frozen=True)
class AuditPatient:
    """Whose data it was; both may be empty where nobody could tell."""

    patient_id: str = ""
    name: str = ""


@dataclass(frozen=True)
class AuditStudy:
    """A study, and how many instances of each SOP class took part."""

    study_uid: str
    sop_classes: Mapping[str, int] = field(default_factory=dict)
    accession_number: str = ""


@dataclass(frozen=True)
class AuditMessage:
    """A finished message: `event` is its EventID, `at` UTC seconds since 1970, `xml` one line of text."""

    event: str
    at: float
    xml: str


def _message(
    source: AuditSource,
    event: str,
    at: float,
    action: Action,
    outcome: Outcome,
    people: Iterable[ET.Element],
    objects: Iterable[ET.Element] = (),
    *,
    kind: str = "",
    why: str = "",
) -> AuditMessage:
    root = ET.Element("AuditMessage")
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    what = ET.SubElement(
        root,
        "EventIdentification",
        EventActionCode=action,
        EventDateTime=moment,
        EventOutcomeIndicator=outcome,
    )
    what.append(_coded("EventID", event, EVENTS[event]))
    if kind:
        what.append(_coded("EventTypeCode", kind, TYPES[kind]))
    if why:
        ET.SubElement(what, "EventOutcomeDescription").text = clean(why)
    root.extend(people)
    reporter = {"AuditSourceID": _token(source.source_id)}
    if source.site:
        reporter["AuditEnterpriseSiteID"] = _token(source.site)
    ET.SubElement(
        ET.SubElement(root, "AuditSourceIdentification", reporter),
        "AuditSourceTypeCode",
        {"csd-code": "4"},  # application server process
    )
    root.extend(objects)
    return AuditMessage(event, at, ET.tostring(root, encoding="unicode"))


def clean(text: str, longest: int = LONGEST) -> str:
    """Return text that may stand in XML 1.0, on one line, cut: what has no place there becomes U+FFFD."""
    return _NO_CHARACTER.sub("\ufffd", _SPACES.sub(" ", text[:longest] + ("…" if len(text) > longest else "")))


def _token(text: str) -> str:
    """As `clean`, never empty: an identifier that is missing is told as such."""
    return clean(text).strip() or "unknown"


def _coded(tag: str, code: str, meaning: str, system: str = "DCM") -> ET.Element:
    return ET.Element(tag, {"csd-code": code, "codeSystemName": system, "originalText": meaning})


def _participant(
    user: str, role: tuple[str, str] | None, *, requests: bool, address: str = "", alternative: str = "", name: str = ""
) -> ET.Element:
    values = {"UserID": _token(user)}
    if alternative:
        values["AlternativeUserID"] = clean(alternative)
    if name:
        values["UserName"] = clean(name)
    values["UserIsRequestor"] = "true" if requests else "false"
    if address:
        values["NetworkAccessPointID"] = _token(address)
        values["NetworkAccessPointTypeCode"] = "2" if _is_ip(address) else "1"
    element = ET.Element("ActiveParticipant", values)
    if role is not None:
        element.append(_coded("RoleIDCode", *role))
    return element


def _is_ip(text: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False


def _us(source: AuditSource, role: tuple[str, str] = _APPLICATION, *, requests: bool = False) -> ET.Element:
    return _participant(
        f"AETITLE={source.ae_title}",
        role,
        requests=requests,
        address=socket.gethostname(),
        alternative=str(os.getpid()),
    )


def _them(peer: AuditPeer, role: tuple[str, str], *, requests: bool) -> ET.Element:
    user = peer.ae_title if "://" in peer.ae_title else f"AETITLE={peer.ae_title.strip()}"
    return _participant(user, role, requests=requests, address=peer.address)


def os_user() -> str:
    """Return the name of the operating system's user who runs this process, and of the one who became it by sudo."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    behind = os.environ.get("SUDO_USER", "")
    return f"{behind} as {name}" if behind and behind != name else name


def _study_object(study: AuditStudy, life_cycle: str = "") -> ET.Element:
    values = {"ParticipantObjectID": _token(study.study_uid), "ParticipantObjectTypeCode": "2"}
    values["ParticipantObjectTypeCodeRole"] = "3"
    if life_cycle:
        values["ParticipantObjectDataLifeCycle"] = life_cycle
    element = ET.Element("ParticipantObjectIdentification", values)
    element.append(_coded("ParticipantObjectIDTypeCode", "110180", "Study Instance UID"))
    ET.SubElement(element, "ParticipantObjectName").text = _token(study.study_uid)
    if study.accession_number or study.sop_classes:
        described = ET.SubElement(element, "ParticipantObjectDescription")
        if study.accession_number:
            ET.SubElement(described, "Accession", Number=_token(study.accession_number))
        shown = sorted(study.sop_classes.items())
        for uid, count in shown[:_MOST_CLASSES]:
            ET.SubElement(described, "SOPClass", UID=_token(uid), NumberOfInstances=str(count))
        if rest := sum(count for _, count in shown[_MOST_CLASSES:]):
            ET.SubElement(described, "SOPClass", NumberOfInstances=str(rest))
    return element


def _patient_object(patient: AuditPatient) -> ET.Element:
    element = ET.Element(
        "ParticipantObjectIdentification",
        {
            "ParticipantObjectID": _token(patient.patient_id),
            "ParticipantObjectTypeCode": "1",
            "ParticipantObjectTypeCodeRole": "1",
        },
    )
    element.append(_coded("ParticipantObjectIDTypeCode", "2", "Patient Number", "RFC-3881"))
    ET.SubElement(element, "ParticipantObjectName").text = _token(patient.name)
    return element


def _thing(identifier: str, kind: tuple[str, str, str], role: str, details: Mapping[str, str]) -> ET.Element:
    """Return a system object; details are told in base64, as the schema has it."""
    element = ET.Element(
        "ParticipantObjectIdentification",
        {
            "ParticipantObjectID": _token(identifier),
            "ParticipantObjectTypeCode": "2",
            "ParticipantObjectTypeCodeRole": role,
        },
    )
    element.append(_coded("ParticipantObjectIDTypeCode", *kind))
    ET.SubElement(element, "ParticipantObjectName").text = _token(identifier)
    for name, value in details.items():
        ET.SubElement(
            element, "ParticipantObjectDetail", type=_token(name), value=_base64(value.encode("utf-8", "replace"))
        )
    return element


def _base64(data: bytes, longest: int = LONGEST) -> str:
    return base64.b64encode(data[:longest]).decode()


_URI, _NODE_ID = ("12", "URI", "RFC-3881"), ("110182", "Node ID", "DCM")


def activity(
    source: AuditSource, at: float, *, started: bool, outcome: Outcome = SUCCESS, why: str = ""
) -> AuditMessage:
    """Application Activity (A.5.3.1): the node has started or stopped. `outcome`: not success where it was killed."""
    people = [_us(source), _participant(os_user(), _LAUNCHER, requests=True)]
    return _message(source, ACTIVITY, at, "E", outcome, people, kind=START if started else STOP, why=why)


def _transfer(
    source: AuditSource,
    event: str,
    at: float,
    peer: AuditPeer,
    studies: Sequence[AuditStudy],
    patient: AuditPatient,
    *,
    incoming: bool,
    pulled: bool,
    outcome: Outcome,
) -> AuditMessage:
    ours, theirs = (_DESTINATION, _SOURCE) if incoming else (_SOURCE, _DESTINATION)
    we_ask = incoming == pulled
    people = [_them(peer, theirs, requests=not we_ask), _us(source, ours, requests=we_ask)]
    if not incoming:
        people.reverse()
    action: Action = "E" if event == BEGIN else ("C" if incoming else "R")
    objects = [*map(_study_object, studies), _patient_object(patient)]
    return _message(source, event, at, action, outcome, people, objects)


def begin_transferring(
    source: AuditSource,
    at: float,
    peer: AuditPeer,
    studies: Sequence[AuditStudy],
    patient: AuditPatient,
    *,
    incoming: bool,
    pulled: bool = False,
) -> AuditMessage:
    """Begin Transferring DICOM Instances (A.5.3.3)."""
    return _transfer(source, BEGIN, at, peer, studies, patient, incoming=incoming, pulled=pulled, outcome=SUCCESS)


def transferred(
    source: AuditSource,
    at: float,
    peer: AuditPeer,
    studies: Sequence[AuditStudy],
    patient: AuditPatient,
    *,
    incoming: bool,
    pulled: bool = False,
    outcome: Outcome = SUCCESS,
) -> AuditMessage:
    """DICOM Instances Transferred (A.5.3.7), both ways. `pulled`: the receiving side asked for it (C-GET)."""
    return _transfer(source, TRANSFERRED, at, peer, studies, patient, incoming=incoming, pulled=pulled, outcome=outcome)


def accessed(
    source: AuditSource,
    at: float,
    study: AuditStudy,
    patient: AuditPatient,
    action: Action = "R",
    *,
    user: str = "",
    address: str = "",
) -> AuditMessage:
    """DICOM Instances Accessed (A.5.3.6): the node analyses a study, or `user` looks at it from `address`."""
    people = [_participant(user, None, requests=True, address=address)] if user else []
    return _message(
        source,
        ACCESSED,
        at,
        action,
        SUCCESS,
        [*people, _us(source, requests=not user)],
        [_study_object(study), _patient_object(patient)],
    )


def study_deleted(
    source: AuditSource, at: float, study: AuditStudy, patient: AuditPatient, why: str, user: str = ""
) -> AuditMessage:
    """DICOM Study Deleted (A.5.3.8)."""
    people = [_participant(user, None, requests=True)] if user else []
    people.append(_us(source, requests=not user))
    objects = [_study_object(study, "15"), _patient_object(patient)]
    return _message(source, DELETED, at, "D", SUCCESS, people, objects, why=why)


def authentication(
    source: AuditSource, at: float, user: str, address: str, *, login: bool, outcome: Outcome = SUCCESS, why: str = ""
) -> AuditMessage:
    """User Authentication (A.5.3.12): `user` has logged in or out from `address`, or tried in vain."""
    people = [_participant(user, None, requests=True, address=address), _us(source)]
    return _message(source, AUTHENTICATION, at, "E", outcome, people, kind=LOGIN if login else LOGOUT, why=why)


def query(
    source: AuditSource,
    at: float,
    peer: AuditPeer,
    sop_class: str,
    identifier: bytes,
    transfer_syntax: str,
    *,
    incoming: bool,
    outcome: Outcome = SUCCESS,
) -> AuditMessage:
    """Query (A.5.3.10). `identifier`: the encoded data set of the question; a long one is cut."""
    theirs, ours = (_SOURCE, _DESTINATION) if incoming else (_DESTINATION, _SOURCE)
    people = [_them(peer, theirs, requests=incoming), _us(source, ours, requests=not incoming)]
    asked = ET.Element(
        "ParticipantObjectIdentification",
        {
            "ParticipantObjectID": _token(sop_class),
            "ParticipantObjectTypeCode": "2",
            "ParticipantObjectTypeCodeRole": "3",
        },
    )
    asked.append(_coded("ParticipantObjectIDTypeCode", "110181", "SOP Class UID"))
    ET.SubElement(asked, "ParticipantObjectQuery").text = _base64(identifier, _LONGEST_QUERY)
    syntax = _base64(transfer_syntax.encode("utf-8", "replace"))
    ET.SubElement(asked, "ParticipantObjectDetail", type="TransferSyntax", value=syntax)
    return _message(source, QUERY, at, "E", outcome, people, [asked])


def export(source: AuditSource, at: float, user: str, target: str, details: Mapping[str, str]) -> AuditMessage:
    """Export (A.5.3.5) of the pseudonymised registry by a person to a folder."""
    media = _participant(target, _MEDIA, requests=False)
    held = ET.SubElement(media, "MediaIdentifier")
    held.append(_coded("MediaType", "110037", "URI"))
    people = [_participant(user, _SOURCE, requests=True), _us(source), media]
    exported = _thing(target, _URI, "3", details)
    ET.SubElement(ET.SubElement(exported, "ParticipantObjectDescription"), "Anonymized").text = "true"
    return _message(source, EXPORT, at, "R", SUCCESS, people, [exported])


def refused(source: AuditSource, at: float, peer: AuditPeer, why: str, count: int = 1) -> AuditMessage:
    """Security Alert, Node Authentication (A.5.3.11): an association was refused. `count`: so many alike."""
    people = [_them(peer, _SOURCE, requests=True), _us(source, _DESTINATION)]
    reported = _thing(f"AETITLE={source.ae_title}", _NODE_ID, "13", {"Alert Description": why, "Number": str(count)})
    return _message(source, ALERT, at, "E", MINOR, people, [reported], kind=NODE_AUTHENTICATION, why=why)


def alert(
    source: AuditSource,
    at: float,
    kind: str,
    what: str,
    details: Mapping[str, str],
    *,
    user: str = "",
    outcome: Outcome = SUCCESS,
    study: AuditStudy | None = None,
) -> AuditMessage:
    """Security Alert (A.5.3.11): the configuration was changed, or a person used a function that changes things.

    Args:
        source: who reports.
        at: UTC seconds since 1970.
        kind: an EventTypeCode, such as `RESTRICTED`.
        what: the object: a file, a command.
        details: further words.
        user: the operating system's user who did it.
        outcome: as the schema has it.
        study: the one that the function was used on.
    """
    people = [_participant(user, None, requests=True)] if user else []
    people.append(_us(source, requests=not user))
    objects = [_thing(what, _URI, "13", details), *([_study_object(study)] if study else [])]
    return _message(source, ALERT, at, "E", outcome, people, objects, kind=kind)
