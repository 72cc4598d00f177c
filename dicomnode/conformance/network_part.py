"""Sections N.0 to N.5 and N.7: overview, introduction, application entities, services, and how they communicate."""

from collections.abc import Sequence
from typing import Final

from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION

import dicomnode
from dicomnode.config import NodeTable
from dicomnode.conformance import network_tables as tables
from dicomnode.conformance.document import DocumentSection, DocumentTable, bullets
from dicomnode.conformance.origin_server import origin_server
from dicomnode.conformance.services import ENTITIES, RECEIVER, Service
from dicomnode.network import fhir, mllp, stow
from dicomnode.network.association import Peer
from dicomnode.network.association_request import LONGEST_REQUEST
from dicomnode.network.upper_layer import LONGEST_PDU
from dicomnode.reception import commitment_scp, query_model
from dicomnode.reception.holdings import KEYS, LEVELS
from dicomnode.report.context import MANUFACTURER, MODEL_NAME

_NONE: Final = "Not supported."
_CHARACTERS: Final = (
    "Objects are received, kept, returned and forwarded byte for byte, in any Specific Character Set. The objects that "
    "the node makes keep the source's Specific Character Set and repeat its values byte for byte; the node's own text "
    "is ASCII, which every character set of DICOM holds. Queries match in the characters that the values stand for, "
    "without regard to case in names; answers come in the stored object's character set. Queries of the node use the "
    "character set of the image that they are about."
)
_BESIDE_DICOM: Final = (
    "Beside DICOM, a destination may get each result as one report, whose numbers, codes and units are read back from "
    "the structured reports: [FHIR and HL7](admin/results-out-of-dicom.md). Such a destination takes no DICOM objects, "
    "no storage commitment and no rejection note; a later report replaces what it had."
)
_FHIR: Final = (
    "FHIR R4 (destinations of kind `fhir`): one transaction with DiagnosticReport, Observations, Device and, where "
    "wanted, the PDF. Patient, order and study are named by identifiers: Patient ID with the system of its issuer, "
    "Accession Number, placer and filler number, Study Instance UID; the report by the SOP Instance UID of its "
    "structured report. Basic or bearer authentication. Search and other interactions: none but the capabilities."
)
_HL7: Final = (
    "HL7 version 2.5.1 (destinations of kind `hl7`): ORU^R01 over MLLP, original acknowledgement mode, UTF-8, with "
    "or without TLS."
)
_FLOW: Final = """```text
 modality / PACS ── C-STORE ─▶ RECEIVER ─▶ spool ─▶ analysis ─▶ SENDER ── C-STORE, STOW-RS ─▶ PACS
                    C-FIND/MOVE/GET ▲                  ▲   │                N-ACTION commitment ─▶
                                                       │   │                FHIR, HL7 ─▶ EHR, RIS
 RIS ◀── C-FIND worklist ── ORDERS ────────────────────┘   │
 PACS ◀── C-FIND, C-MOVE or C-GET ── PRIORS ───────────────┘ (prior scans come in by RECEIVER)
 workflow manager ◀── UPS, MPPS ── STEPS
```"""
_SEQUENCE: Final = (
    "Images come in; the study settles when it is complete or quiet (`settle`).",
    "ORDERS looks for the study's order if the images do not name it; PRIORS fetches prior scans. A study waits for "
    "these no longer than is configured, and goes on without them.",
    "STEPS reports that the analysis has begun (N-CREATE, or a claimed task).",
    "SENDER stores the results at each destination.",
    "SENDER asks for storage commitment where that is configured.",
    "SENDER stores a rejection note for results that these replace, where that is configured.",
    "STEPS reports the end with references to the stored results.",
)


def cover() -> DocumentSection:
    """Return N.0."""
    rows = (
        ("Product", MODEL_NAME),
        ("Manufacturer", MANUFACTURER),
        ("Version", dicomnode.__version__),
        ("Intended use", "research only; not a medical device"),
    )
    return DocumentSection("N.0", "Cover page", (DocumentTable("cover", ("", "Value"), rows),))


def overview(offered: Sequence[Service], created: DocumentTable) -> DocumentSection:
    """Return N.1."""
    text = (
        "dicomnode stands beside a department's PACS. It receives chest CT studies, segments and measures the lungs, "
        "estimates a risk with a model bundle, and sends a segmentation, structured reports and a summary page back; "
        "where configured also areas by attenuation, a PDF, and the result as FHIR resources or HL7 message."
    )
    return DocumentSection(
        "N.1",
        "Conformance statement overview",
        (text,),
        (
            DocumentSection("N.1.1", "Network services", (tables.services_table(offered),)),
            DocumentSection("N.1.2", "Objects created", (_without_last(created),)),
            DocumentSection(
                "N.1.3",
                "DICOM web services",
                (
                    "Studies service: store (STOW-RS) as user agent; search (QIDO-RS), retrieve (WADO-RS) and store "
                    "(STOW-RS) as origin server; results as FHIR and HL7, beside DICOM: N.5.3.",
                ),
            ),
            DocumentSection("N.1.4", "Media services", (_NONE,)),
            DocumentSection("N.1.5", "Real-time video services", (_NONE,)),
            DocumentSection("N.1.6", "De-identification profiles", ("None is claimed: see N.8.4.",)),
            DocumentSection("N.1.7", "Character sets", ("Any, byte for byte: see N.5.7.",)),
        ),
    )


def _without_last(created: DocumentTable) -> DocumentTable:
    return DocumentTable("overview of objects", created.columns[:3], tuple(row[:3] for row in created.rows))


def contents_page() -> DocumentSection:
    """Return N.2."""
    lines = (
        "N.1 Conformance statement overview", "N.3 Introduction", "N.4 Implementation model",
        "N.5 Service and interoperability description", "N.6 Configuration",
        "N.7 Network and media communication details", "N.8 Security",
        "A.A Information object definitions", "A.B Structured report content encoding", "A.C Security details",
        "A.D Mapping of attributes", "A.E Code set usage",
    )  # fmt: skip
    return DocumentSection("N.2", "Table of contents", (bullets(lines),))


def introduction() -> DocumentSection:
    """Return N.3."""
    sections = (
        ("N.3.1", "Revision history", "It is written anew with each version of the software: see `CHANGELOG.md`."),
        ("N.3.2", "Audience", "Administrators and integrators of PACS, RIS and modalities, and who tests them."),
        (
            "N.3.3",
            "Remarks",
            "Conformance does not by itself guarantee interoperability: try each connection. IHE profiles: "
            "[ihe-integration-statement.md](ihe-integration-statement.md).",
        ),
        ("N.3.4", "Terms and definitions", "See the [glossary](glossary.md), and PS3.1 to PS3.20."),
        (
            "N.3.5",
            "Abbreviations",
            "AE application entity; IOD information object definition; MPPS modality performed procedure step; "
            "SCP service class provider; SCU service class user; SEG segmentation; SR structured report; "
            "TID template; UPS unified procedure step; VR value representation.",
        ),
        ("N.3.6", "References", "NEMA PS3 / ISO 12052, Digital Imaging and Communications in Medicine (DICOM)."),
    )
    made = tuple(DocumentSection(number, title, (text,)) for number, title, text in sections)
    return DocumentSection("N.3", "Introduction", (), made)


def model(offered: Sequence[Service]) -> DocumentSection:
    """Return N.4."""
    entities = tuple(
        (name, what, ", ".join(f"{one.name} {one.role}" for one in offered if one.entity == name))
        for name, what in ENTITIES.items()
    )
    return DocumentSection(
        "N.4",
        "Implementation model",
        (),
        (
            DocumentSection(
                "N.4.1",
                "Application entities and data flow",
                (
                    _FLOW,
                    "All entities share the AE title `node.ae_title`; `calling_ae_title` names another one towards a "
                    "single peer. The names below are of this statement alone.",
                    DocumentTable("entities", ("AE", "Function", "Services"), entities),
                ),
            ),
            DocumentSection(
                "N.4.2",
                "Sequencing of real-world activities",
                ("\n".join(f"{number}. {line}" for number, line in enumerate(_SEQUENCE, start=1)),),
            ),
        ),
    )


def interoperability(offered: Sequence[Service]) -> DocumentSection:
    """Return N.5."""
    dimse = tuple(_service(f"N.5.2.{number}", one) for number, one in enumerate(offered, start=1))
    web = (
        "Studies service as user agent: STOW-RS (PS3.18 10.5), one object in each request, "
        '`multipart/related; type="application/dicom"`, answers as DICOM JSON; a QIDO-RS search without a match tests '
        "the connection. Basic or bearer authentication."
    )
    columns = ("Answer", "Source", "Taken as")
    stow_table = DocumentTable("STOW-RS answers", columns, stow.HANDLING)
    fhir_table = DocumentTable("FHIR answers", columns, fhir.HANDLING)
    hl7_table = DocumentTable("HL7 answers", columns, mllp.HANDLING)
    cross = (
        "An object that comes again under its SOP Instance UID is compared in content, not in bytes: the same content "
        "is success and changes nothing; other content is refused until a person decides. Results that come back are "
        "recognised and not stored again. A corrected patient or study makes new results, which name the old ones as "
        "predecessors."
    )
    return DocumentSection(
        "N.5",
        "Service and interoperability description",
        (),
        (
            DocumentSection("N.5.1", "Mapping of services to application entities", (tables.services_table(offered),)),
            DocumentSection("N.5.2", "DIMSE services", (), dimse),
            DocumentSection(
                "N.5.3",
                "DICOM web services",
                (web, stow_table, *origin_server(), _BESIDE_DICOM, _FHIR, fhir_table, _HL7, hl7_table),
            ),
            DocumentSection("N.5.4", "Media services", (_NONE,)),
            DocumentSection("N.5.5", "Real-time video services", (_NONE,)),
            DocumentSection("N.5.6", "Cross-service considerations", (cross,)),
            DocumentSection("N.5.7", "Specific character sets", (_CHARACTERS,)),
        ),
    )


def _service(number: str, one: Service) -> DocumentSection:
    name = f"{one.entity} {one.role} {one.name}"
    blocks: list[str | DocumentTable] = [f"Switched on by: {one.tables or 'always on'}."]
    is_storage_scp = one.role == "SCP" and one.name.startswith("Storage (")
    if is_storage_scp:
        blocks += ["SOP classes and transfer syntaxes: N.7.3."]
    else:
        blocks.append(tables.contexts_table(f"contexts: {name}", one.offered))
    if one.name.startswith("Query/Retrieve (") and one.role == "SCP":
        blocks.append(_keys())
    if one.peer_statuses:
        blocks.append(tables.peer_statuses_table(f"answers: {name}", one.peer_statuses))
    if one.own_statuses:
        blocks.append(tables.own_statuses_table(f"statuses: {name}", one.own_statuses))
    if "Commitment" in one.name and one.role == "SCP":
        blocks += ["Failure Reasons:", tables.own_statuses_table("failure reasons", commitment_scp.REASONS)]
    if one.remarks:
        blocks.append(bullets(one.remarks))
    return DocumentSection(number, f"{one.name}, {one.role} ({one.entity})", tuple(blocks))


def _keys() -> DocumentTable:
    rows = (
        (level, keyword, "unique" if keyword == query_model.UNIQUE[level] else "matching and return")
        for level in LEVELS
        for keyword in KEYS[level]
    )
    return DocumentTable("query keys", ("Level", "Key", "Kind"), tuple(rows))


def details(offered: Sequence[Service]) -> DocumentSection:
    """Return N.7."""
    defaults, peer = NodeTable(), Peer("", "", "", 104)
    policies = (
        ("Application context", "1.2.840.10008.3.1.1.1", ""),
        ("Implementation Class UID", str(PYNETDICOM_IMPLEMENTATION_UID), ""),
        ("Implementation Version Name", str(PYNETDICOM_IMPLEMENTATION_VERSION), ""),
        ("Asynchronous operations", "not negotiated: one operation at a time", ""),
        ("SOP class extended negotiation, user identity", "not negotiated; what is offered is ignored", ""),
        (
            "SCP/SCU role selection",
            "storage commitment reports (node as SCP), C-GET (requester as SCP of the storage classes)",
            "",
        ),
        ("Maximum PDU as acceptor, bytes", f"{defaults.max_pdu_bytes}, at most {LONGEST_PDU}", "`node.max_pdu_bytes`"),
        ("Maximum PDU as requestor, bytes", "no limit stated" if peer.max_pdu == 0 else str(peer.max_pdu), ""),
        ("Association request, bytes", str(LONGEST_REQUEST), ""),
        ("Associations as acceptor", str(defaults.max_associations), "`node.max_associations`"),
        ("of one address", "four fifths of these", "`node.max_associations_per_address`"),
        (
            "new ones a minute of one address",
            str(defaults.max_associations_per_minute),
            "`node.max_associations_per_minute`",
        ),
        ("receiving processes, each with these limits", str(defaults.receivers), "`node.receivers`"),
        ("Associations as requestor", "one for each study under way to a destination", "`destination.concurrency`"),
        (
            "Silence after which an association is aborted, s",
            f"{defaults.network_timeout_s:g}",
            "`node.network_timeout_s`",
        ),
    )
    acceptance = (
        "RECEIVER accepts an association if the called AE title is its own (unless `node.check_called_ae = false`), "
        "the caller is admitted by AE title, address and certificate (`node.callers`; without any table everybody is), "
        "there is free disk space, and the limits allow it. It gives an association the contexts that it asks for and "
        "no others. Objects and more limits: [limits](admin/limits.md)."
    )
    storage = next(one for one in offered if one.entity == RECEIVER and one.name.startswith("Storage ("))
    text = (
        f"{len(storage.offered)} storage classes of the standard; those to come under the same root are accepted too. "
        "The numbers say in which order the acceptor chooses where one context offers several."
    )
    return DocumentSection(
        "N.7",
        "Network and media communication details",
        (),
        (
            DocumentSection("N.7.1", "Association policies", (
                DocumentTable("policies", ("Item", "Value", "Configured by"), policies), acceptance,
                tables.rejections_table(), tables.requests_table(), tables.failures_table(),
            )),
            DocumentSection("N.7.2", "Physical network interfaces", ("TCP/IP of the operating system.",)),
            DocumentSection("N.7.3", "Storage SOP classes accepted by RECEIVER", (
                text, tables.syntaxes_table(), tables.storage_table(),
            )),
            DocumentSection("N.7.4", "Media", (_NONE,)),
        ),
    )  # fmt: skip
