r"""A result as a message of HL7 version 2.5.1: ORU^R01, UTF-8.

| segment | holds |
|---|---|
| MSH | who sends to whom; MSH-10 derives from the content: the same message has the same number |
| PID | the patient: Patient ID with its issuer, names in each of their scripts |
| ORC, OBR | for each order: placer and filler number, Accession Number (OBR-18), requested procedure (OBR-19) |
| NTE | what must be read before any number |
| OBX NM | one for each number: OBX-3 what it is, OBX-4 of what, OBX-6 in UCUM |
| OBX TX | doubts, what was compared with, which series |
| OBX ED | the PDF, where there is one |

Nobody has reviewed the result: its status is P (preliminary; table 0085, 0123), and X (no result) of a refused study.
Preliminary results that come again replace those before (section 7.4.2); D deletes what the result no longer has.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from pydicom.sr.coding import Code

from dicomnode.report import codes, uids
from dicomnode.report.context import MANUFACTURER
from dicomnode.report.outward.identity import NameParts, OrderNumbers, PatientIdentity
from dicomnode.report.outward.message import Reading, ReportMessage

#: Section 2.7.1: what the delimiters, and what would end a segment or the frame around the message, become.
_ESCAPES: Final[Mapping[int, str]] = {
    **{code: f"\\X{code:02X}\\" for code in (*range(0x20), 0x7F)},
    **{ord(sign): f"\\{letter}\\" for sign, letter in (("|", "F"), ("^", "S"), ("&", "T"), ("~", "R"), ("\\", "E"))},
}
_STUDY_UID = Code("110180", "DCM", "Study Instance UID")
_DOCUMENT = Code("18748-4", "LN", "Diagnostic imaging study")


@dataclass(frozen=True)
class Addressing:
    """Who sends to whom (MSH-3 to MSH-6), MSH-11, and whose the Patient IDs are that name no issuer."""

    sending_application: str
    sending_facility: str
    receiving_application: str
    receiving_facility: str
    processing_id: str
    assigning_authority: str


def encode(message: ReportMessage, to: Addressing) -> tuple[bytes, str]:
    """Return the message and its number (MSH-10). The same result gives the same bytes.

    Raises:
        UnaddressedError: the patient has no identifier.
    """
    message.patient.require_identifier()
    body = [_patient(message.patient, to.assigning_authority), *_groups(message)]
    names = (to.sending_application, to.sending_facility, to.receiving_application, to.receiving_facility)
    addressed = [escaped(one) for one in names]
    number = hashlib.sha256("\r".join([*addressed, *body]).encode()).hexdigest()[:20].upper()
    header = _segment(
        "MSH",
        r"^~\&",
        *addressed,
        _moment(message.created),
        "",
        "ORU^R01^ORU_R01",
        number,
        escaped(to.processing_id),
        "2.5.1",
        *[""] * 5,
        "UNICODE UTF-8",
    )
    return "".join(f"{one}\r" for one in (header, *body)).encode(), number


def escaped(text: str) -> str:
    """Return a text with nothing in it that means anything to HL7."""
    return text.translate(_ESCAPES)


def _segment(name: str, *fields: str) -> str:
    return "|".join((name, *fields)).rstrip("|")


def _patient(patient: PatientIdentity, default_authority: str) -> str:
    authority = escaped(patient.issuer or ("" if patient.issuer_oid else default_authority))
    if patient.issuer_oid:
        authority += f"&{escaped(patient.issuer_oid)}&ISO"
    names = "~".join(_name(one) for one in patient.names)
    identifier = f"{escaped(patient.patient_id)}^^^{authority}^MR"
    return _segment("PID", "1", "", identifier, "", names, "", _date(patient.birth_date), patient.sex)


def _name(name: NameParts) -> str:
    parts = (name.family, name.given, name.middle, name.suffix, name.prefix)
    return "^".join((*map(escaped, parts), "", "", name.representation))


def _groups(message: ReportMessage) -> Iterator[str]:
    """Yield orders and results: the whole result for each order that the images answer."""
    for number, order in enumerate(message.orders or (OrderNumbers("", "", "", ""),), start=1):
        yield from _order(number, order, message)
        yield from _notes(message.caveats)
        for place, content in enumerate(_results(message), start=1):
            yield _segment("OBX", str(place), *content)
            if content[0] == "NM":
                yield from _notes(message.caveats)


def _order(number: int, order: OrderNumbers, message: ReportMessage) -> Iterator[str]:
    placer = escaped(order.placer)
    # Without a number of the RIS, ours: it is the same in every version of the result.
    own = f"{uids.derive('diagnostic report', message.device_serial, message.study_uid)}^{MANUFACTURER.upper()}"
    filler = escaped(order.filler or order.accession) or own
    fields = {
        1: str(number),
        2: placer,
        3: filler,
        4: _coded(message.procedure),
        7: _studied(message),
        18: escaped(order.accession),
        19: escaped(order.procedure_id),
        22: _moment(message.created),
        24: "CT",
        25: "X" if message.refused else "P",
    }
    yield _segment("ORC", "RE", placer, filler)
    yield _segment("OBR", *(fields.get(n, "") for n in range(1, max(fields) + 1)))


def _notes(texts: tuple[str, ...]) -> Iterator[str]:
    for number, text in enumerate(texts, start=1):
        yield _segment("NTE", str(number), "L", escaped(text))


def _results(message: ReportMessage) -> Iterator[list[str]]:
    """Yield each OBX from its second field on."""
    yield _result(message, "ST", _coded(_STUDY_UID), "", escaped(message.study_uid))
    for place, one in enumerate(message.remarks, start=1):
        yield _result(message, "TX", _coded(one.concept), str(place), escaped(one.text))
    for reading in message.readings:
        method = reading.method or reading.derivation
        yield _result(
            message,
            "NM",
            _measure(reading),
            escaped(reading.site),
            escaped(f"{Decimal(reading.value):f}"),  # NM has no exponent (section 2A.3.47)
            _coded(reading.unit),
            "" if method is None else _coded(method),
        )
    for reading in message.withdrawn:
        yield _result(message, "NM", _measure(reading), escaped(reading.site), '""', _coded(reading.unit), state="D")
    if message.pdf is not None:
        data = base64.b64encode(message.pdf).decode("ascii")
        yield _result(message, "ED", _coded(_DOCUMENT), "", f"{MANUFACTURER}^application^pdf^Base64^{data}")


def _result(
    message: ReportMessage,
    kind: str,
    what: str,
    of: str,
    value: str,
    unit: str = "",
    method: str = "",
    state: str = "P",
) -> list[str]:
    device = escaped(message.device_uid)
    return [kind, what, of, value, unit, *[""] * 4, state, "", "", _studied(message), "", "", method, device]


def _measure(reading: Reading) -> str:
    """Return the number's code.

    OBX-3 and OBX-4 are the key of a result: of the attenuation, whose mean, median and so on have one concept, the
    derivation joins the code, and the concept itself is the alternate one.
    """
    if reading.derivation is None:
        return _coded(reading.concept)
    concept, derivation = reading.concept, reading.derivation
    words = f"{concept.meaning}, {derivation.meaning}"
    joined = Code(f"{concept.value}-{derivation.value}", codes.SCHEME, words)
    return f"{_coded(joined)}^{_coded(concept)}"


def _coded(code: Code) -> str:
    return "^".join(map(escaped, (code.value, code.meaning, code.scheme_designator)))


def _moment(moment: datetime) -> str:
    return moment.strftime("%Y%m%d%H%M%S%z")


def _studied(message: ReportMessage) -> str:
    """Return when the images were made, as exactly as they say."""
    day, time = _date(message.study_date), message.study_time[:6]
    is_time = len(time) == 6 and time.isdigit()
    return day + (time + escaped(message.time_zone) if is_time else "") if day else ""


def _date(text: str) -> str:
    return text if len(text) == 8 and text.isascii() and text.isdigit() else ""
