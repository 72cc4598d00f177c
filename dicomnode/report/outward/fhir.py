"""A result in FHIR R4: one transaction that a server takes whole or not at all, as often as it is sent.

Every resource is stored under an identifier of our own (conditional update, R4 section 3.1.0.4.3), so that a repeated
message, or a later version of the result, changes the same resources. The identifiers are derived UIDs: they stand in
the bundle's own request lines and name nobody. Patient, order and images belong to other systems and are referred to by
their identifiers alone (R4 section 2.3.0.2, logical references): the node creates none of them.

Nobody has reviewed the result: the report and its observations are «preliminary».
"""

import base64
import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from pydicom.sr.coding import Code

from dicomnode.report import codes, uids
from dicomnode.report.context import MANUFACTURER, MODEL_NAME
from dicomnode.report.outward.identity import OrderNumbers, PatientIdentity, UnaddressedError
from dicomnode.report.outward.message import Reading, ReportMessage

_UID_SYSTEM = "urn:dicom:uid"
_V2_IDENTIFIERS = "http://terminology.hl7.org/CodeSystem/v2-0203"
#: By coding scheme designator (R4 section 2.16.0.1, and PS3.16 section 8 for DICOM's own).
_SYSTEMS: Final[Mapping[str, str]] = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "LN": "http://loinc.org",
    "UCUM": "http://unitsofmeasure.org",
    codes.SCHEME: f"urn:oid:{codes.SCHEME_UID}",
}
_CATEGORY = {"system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": "RAD", "display": "Radiology"}
_IMAGING = {
    "system": "http://terminology.hl7.org/CodeSystem/observation-category",
    "code": "imaging",
    "display": "Imaging",
}
Resource = dict[str, Any]


def transaction(message: ReportMessage, patient_systems: Mapping[str, str]) -> tuple[bytes, int]:
    """Return the transaction as JSON, and the number of its entries. The same message gives the same bytes.

    Args:
        message: the result.
        patient_systems: the URI of a Patient ID's system by its issuer ("" for IDs without one).

    Raises:
        UnaddressedError: no Patient ID, or one of an issuer that is not in a non-empty `patient_systems`.
    """
    subject = _subject(message.patient, patient_systems)
    device = _device(message)
    kept = [(one, _observation(one, message, subject, _address(device))) for one in message.readings]
    gone = [(one, _withdrawn(one, message, subject)) for one in message.withdrawn]
    report = _report(message, subject, [_urn(one.key) for one, _ in kept])
    entries = [
        {
            "fullUrl": _address(device),
            "resource": device,
            "request": {
                "method": "POST",
                "url": "Device",
                "ifNoneExist": f"identifier={_UID_SYSTEM}|urn:oid:{message.device_uid}",
            },
        },
        *(_stored(one.key, resource) for one, resource in (*kept, *gone)),
        _stored(_report_uid(message), report),
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    return json.dumps(bundle, ensure_ascii=False, allow_nan=False).encode(), len(entries)


def _report_uid(message: ReportMessage) -> str:
    return uids.derive("diagnostic report", message.device_serial, message.study_uid)


def _stored(uid: str, resource: Resource) -> Resource:
    kind = resource["resourceType"]
    request = {"method": "PUT", "url": f"{kind}?identifier={_UID_SYSTEM}|urn:oid:{uid}"}
    return {"fullUrl": _urn(uid), "resource": resource, "request": request}


def _urn(uid: str) -> str:
    """Return the address of a resource within the bundle: our UIDs are UUIDs in decimal (PS3.5 B.2)."""
    return uuid.UUID(int=int(uid.removeprefix("2.25."))).urn


def _address(device: Resource) -> str:
    return _urn(str(device["identifier"][0]["value"]).removeprefix("urn:oid:"))


def _device(message: ReportMessage) -> Resource:
    return {
        "resourceType": "Device",
        "identifier": [_own(message.device_uid)],
        "status": "active",
        "manufacturer": MANUFACTURER,
        "deviceName": [{"name": MODEL_NAME, "type": "model-name"}],
        "version": [{"value": message.software or "unknown"}],
        "note": [{"text": text} for text in message.caveats],
    }


def _observation(one: Reading, message: ReportMessage, subject: Resource, device: str) -> Resource:
    found: Resource = {
        "resourceType": "Observation",
        "identifier": [_own(one.key)],
        "status": "preliminary",
        "category": [{"coding": [_IMAGING]}],
        "code": _concept(one.concept, one.name),
        "subject": subject,
        **_effective(message),
        "issued": message.created.isoformat(),
        "valueQuantity": {
            "value": float(one.value),
            "unit": one.unit.value,
            "system": _SYSTEMS["UCUM"],
            "code": one.unit.value,
        },
        "device": {"reference": device},
        "derivedFrom": [_study(message)],
        "note": [{"text": text} for text in message.caveats],
    }
    if one.body_site is not None:
        found["bodySite"] = _concept(one.body_site, one.site)
    how = one.method or one.derivation
    if how is not None:
        found["method"] = _concept(how, how.meaning)
    return found


def _withdrawn(one: Reading, message: ReportMessage, subject: Resource) -> Resource:
    """Return what takes the place of a number that the result has no more, such as a risk that is now withheld."""
    return {
        "resourceType": "Observation",
        "identifier": [_own(one.key)],
        "status": "entered-in-error",
        "code": _concept(one.concept, one.name),
        "subject": subject,
        "issued": message.created.isoformat(),
        "note": [{"text": text} for text in ("A later version of the result does not have this.", *message.caveats)],
    }


def _report(message: ReportMessage, subject: Resource, results: Sequence[str]) -> Resource:
    code = message.procedure
    found: Resource = {
        "resourceType": "DiagnosticReport",
        "identifier": [_own(_report_uid(message)), _own(message.document_uid)],
        "status": "cancelled" if message.refused else "preliminary",
        "category": [{"coding": [_CATEGORY]}],
        "code": _concept(code, f"{code.meaning}: quantitative analysis by {MANUFACTURER}"),
        "subject": subject,
        **_effective(message),
        "issued": message.created.isoformat(),
        "imagingStudy": [_study(message)],
        "conclusion": "\n".join(dict.fromkeys((*message.caveats, *(one.text for one in message.remarks)))),
    }
    if asked := [_order(one) for one in message.orders]:
        found["basedOn"] = asked
    if results:
        found["result"] = [{"reference": address} for address in results]
    if message.pdf is not None:
        data = base64.b64encode(message.pdf).decode("ascii")
        found["presentedForm"] = [{"contentType": "application/pdf", "data": data, "title": "dicomnode report"}]
    return found


def _subject(patient: PatientIdentity, systems: Mapping[str, str]) -> Resource:
    patient.require_identifier()
    kind = {"coding": [{"system": _V2_IDENTIFIERS, "code": "MR"}]}
    identifier: Resource = {"type": kind, "value": patient.patient_id}
    if patient.issuer_oid:
        identifier["system"] = f"urn:oid:{patient.issuer_oid}"
    elif patient.issuer in systems:
        identifier["system"] = systems[patient.issuer]
    elif systems:
        which = "has an issuer that is not in" if patient.issuer else "has no issuer, and there is no '' in"
        raise UnaddressedError(f"the Patient ID {which} patient_systems: add it there, with the URI of its system")
    if patient.issuer:
        identifier["assigner"] = {"display": patient.issuer}
    return {"type": "Patient", "identifier": identifier}


def _study(message: ReportMessage) -> Resource:
    return {
        "type": "ImagingStudy",
        "identifier": {"system": _UID_SYSTEM, "value": f"urn:oid:{message.study_uid}"},
    }


def _order(order: OrderNumbers) -> Resource:
    """Return a reference to the order by one of its numbers, and to be read by people, by the others."""
    kinds = (("ACSN", order.accession), ("PLAC", order.placer), ("FILL", order.filler))
    known = [(kind, value) for kind, value in kinds if value]
    found: Resource = {"type": "ServiceRequest"}
    if known:
        (kind, value), *others = known
        found["identifier"] = {"type": {"coding": [{"system": _V2_IDENTIFIERS, "code": kind}]}, "value": value}
    else:
        others = []
    words = [f"{kind} {value}" for kind, value in others]
    words += [f"requested procedure {order.procedure_id}"] if order.procedure_id else []
    return {**found, "display": ", ".join(words)} if words else found


def _effective(message: ReportMessage) -> Resource:
    """Return when the images were made, as exactly as they say: R4 has no time of day without a time zone."""
    try:
        day = datetime.strptime(message.study_date, "%Y%m%d")
    except ValueError:
        return {}
    try:
        whole = message.study_date + message.study_time[:6] + message.time_zone
        return {"effectiveDateTime": datetime.strptime(whole, "%Y%m%d%H%M%S%z").isoformat()}
    except ValueError:
        return {"effectiveDateTime": day.date().isoformat()}


def _concept(code: Code, words: str) -> Resource:
    # A code has no spaces but single ones within (R4, 2.24.0.1); those of a hospital do.
    coding = {"code": " ".join(code.value.split()), "display": code.meaning}
    system = _SYSTEMS.get(code.scheme_designator)
    # A local scheme of the hospital has no URI that we could know: its designator keeps two schemes apart.
    coding["system"] = system or f"urn:dicomnode:scheme:{code.scheme_designator or 'none'}"
    return {"coding": [coding], "text": words}


def _own(uid: str) -> Resource:
    return {"system": _UID_SYSTEM, "value": f"urn:oid:{uid}"}
