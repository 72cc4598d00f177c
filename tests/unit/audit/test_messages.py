"""Audit messages are valid, whatever stands in them."""

import base64
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomnode.audit import messages
from dicomnode.audit.messages import AuditMessage, AuditPatient, AuditPeer, AuditSource, AuditStudy
from tests.helpers.audit_schema import faults

NOW = 1_780_000_000.25
Build = Callable[[str], AuditMessage]


def _source(text: str) -> AuditSource:
    return AuditSource(text, text, text)


def _study(text: str) -> AuditStudy:
    return AuditStudy(text, {text: 3, "1.2.840.10008.5.1.4.1.1.2": 200}, text)


def _patient(text: str) -> AuditPatient:
    return AuditPatient(text, text)


BUILDERS: dict[str, Build] = {
    "start": lambda t: messages.activity(_source(t), NOW, started=True),
    "stop": lambda t: messages.activity(_source(t), NOW, started=False, outcome=messages.SERIOUS, why=t),
    "begin": lambda t: messages.begin_transferring(
        _source(t), NOW, AuditPeer(t, t), [_study(t)], _patient(t), incoming=True
    ),
    "received": lambda t: messages.transferred(
        _source(t), NOW, AuditPeer(t, "10.1.2.3"), [_study(t)], _patient(t), incoming=True, outcome=messages.MINOR
    ),
    "sent": lambda t: messages.transferred(
        _source(t), NOW, AuditPeer(t, "::1"), [_study(t)], _patient(t), incoming=False, pulled=True
    ),
    "accessed": lambda t: messages.accessed(_source(t), NOW, _study(t), _patient(t)),
    "deleted": lambda t: messages.study_deleted(_source(t), NOW, _study(t), _patient(t), t, user=t),
    "query": lambda t: messages.query(
        _source(t), NOW, AuditPeer(t, t), t, t.encode("utf-8", "replace") * 9_000, t[:50], incoming=True
    ),
    "export": lambda t: messages.export(_source(t), NOW, t, t, {"scans": t}),
    "looked": lambda t: messages.accessed(_source(t), NOW, _study(t), _patient(t), user=t, address=t),
    "login": lambda t: messages.authentication(_source(t), NOW, t, t, login=True, outcome=messages.MINOR, why=t),
    "refused": lambda t: messages.refused(_source(t), NOW, AuditPeer(t, t), t, 17),
    "alert": lambda t: messages.alert(
        _source(t), NOW, messages.RESTRICTED, t, {t: t}, user=t, study=_study(t), outcome=messages.SERIOUS
    ),
}


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize(
    "text",
    [
        "DICOMNODE",
        "",
        "Müller^Jürgen=山田^太郎",
        "<!--]]>&\"'<AuditMessage>",
        "".join(map(chr, range(32))) + "\x7f\x85\u2028\ud800\udfff\ufffe\uffff\U0001f600",
        "9" * 70_000,
        " \t\n ",
    ],
    ids=["plain", "empty", "names", "markup", "controls", "long", "spaces"],
)
def test_every_message_is_valid_whatever_stands_in_it(name: str, text: str) -> None:
    message = BUILDERS[name](text)
    assert faults(message.xml) == []
    assert len(message.xml.encode()) < 8_000
    assert not any(ord(c) < 32 or 126 < ord(c) < 160 for c in message.xml)


@given(st.text(st.characters(), max_size=300), st.sampled_from(sorted(BUILDERS)))
def test_no_text_breaks_a_message(text: str, name: str) -> None:
    assert faults(BUILDERS[name](text).xml) == []


def test_the_schema_finds_faults() -> None:
    good = BUILDERS["received"]("X").xml
    for before, after in (
        ("EventDateTime", "DateTime"),
        ('EventOutcomeIndicator="4"', 'EventOutcomeIndicator="5"'),
        ("ParticipantObjectName", "Name"),
        ('originalText="', 'text="'),
    ):
        assert before in good
        assert faults(good.replace(before, after)) != []


def test_a_transfer_says_who_sent_what_of_whom() -> None:
    study = AuditStudy("1.2.3", {"1.2.840.10008.5.1.4.1.1.2": 200}, "A17")
    patient = AuditPatient("P1", "Müller^Jürgen")
    peer = AuditPeer("CT1", "10.1.2.3")
    root = ET.fromstring(
        messages.transferred(AuditSource("node", "NODE"), NOW, peer, [study], patient, incoming=True).xml
    )
    event = root.find("EventIdentification")
    assert event is not None
    assert event.attrib == {
        "EventActionCode": "C",
        "EventDateTime": "2026-05-28T20:26:40.250Z",
        "EventOutcomeIndicator": "0",
    }
    people = {p.attrib["UserID"]: p for p in root.iter("ActiveParticipant")}
    roles = {user: p.find("RoleIDCode").attrib["csd-code"] for user, p in people.items()}  # type: ignore[union-attr]
    assert roles == {"AETITLE=CT1": "110153", "AETITLE=NODE": "110152"}
    assert people["AETITLE=CT1"].attrib["UserIsRequestor"] == "true"
    assert people["AETITLE=CT1"].attrib["NetworkAccessPointID"] == "10.1.2.3"
    objects = {o.attrib["ParticipantObjectID"]: o for o in root.iter("ParticipantObjectIdentification")}
    assert objects.keys() == {"1.2.3", "P1"}
    assert objects["P1"].findtext("ParticipantObjectName") == "Müller^Jürgen"
    classes = [c.attrib for c in objects["1.2.3"].iter("SOPClass")]
    assert classes == [{"UID": "1.2.840.10008.5.1.4.1.1.2", "NumberOfInstances": "200"}]
    assert [a.attrib["Number"] for a in objects["1.2.3"].iter("Accession")] == ["A17"]


def test_many_sop_classes_are_counted_in_whole() -> None:
    study = AuditStudy("1.2.3", {f"1.2.{n}": 2 for n in range(100)})
    xml = messages.accessed(AuditSource("node", "NODE"), NOW, study, AuditPatient()).xml
    assert sum(int(c.attrib["NumberOfInstances"]) for c in ET.fromstring(xml).iter("SOPClass")) == 200
    assert faults(xml) == []


def test_a_query_is_told_as_it_was_encoded() -> None:
    xml = messages.query(
        AuditSource("n", "N"), NOW, AuditPeer("X", "h"), "1.2", b"\0\xff", "1.2.840", incoming=False
    ).xml
    text = ET.fromstring(xml).findtext(".//ParticipantObjectQuery")
    assert text is not None
    assert base64.b64decode(text) == b"\0\xff"
