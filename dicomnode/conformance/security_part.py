"""Section N.8 and annex A.C: TLS, access, audit trail, de-identification."""

from typing import Final

from dicomnode.audit import messages
from dicomnode.conformance.document import DocumentSection, DocumentTable, bullets
from dicomnode.network import tls

_TLS: Final = (
    "BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile (PS3.15 B.12), both as acceptor and as requestor; "
    "off until `tls` is configured. Certificates of both sides are required. Profiles older than BCP 195 are refused. "
    "The same holds for HL7 over MLLP. STOW-RS and FHIR go by HTTPS to servers whose certificate a CA of `ca_file`, or "
    "of the system, has signed; credentials are sent by HTTPS alone. `/live`, `/ready` and `/metrics` (`monitoring`) "
    "answer by HTTP without TLS, and hold no patient data. The web console (`console`) answers by HTTPS, or on this "
    "machine alone; its users log in by password, or by OpenID Connect at the site's provider (`console.oidc`)."
)
_AUDIT: Final = (
    "Audit Trail Message Format Profile (PS3.15 A.5) with Audit Trail Message Transmission Profiles: Syslog-TLS "
    "(A.6, RFC 5425) and Syslog-UDP (A.7, RFC 5426), or a file; off until `audit` is configured. Messages are kept "
    "in an outbox until the server has them."
)
_ACCESS: Final = (
    "AE titles, addresses and certificates of callers are configured (`node.callers`); an AE title to which a "
    "certificate is bound has to be proved by it. Query and retrieve are allowed for each caller; C-MOVE goes to "
    "configured addresses alone. User identity negotiation is not supported."
)


def security() -> DocumentSection:
    """Return N.8."""
    deidentified = (
        "No profile of PS3.15 annex E is claimed. DICOM objects are sent as they are, patient data included. The "
        "training registry is exported under pseudonyms and with shifted dates as tables, not as DICOM objects."
    )
    return DocumentSection(
        "N.8",
        "Security",
        (),
        (
            DocumentSection("N.8.1", "Secure transport connection profiles", (_TLS,)),
            DocumentSection("N.8.2", "Association level security", (_ACCESS,)),
            DocumentSection("N.8.3", "Audit trail", (_AUDIT,)),
            DocumentSection("N.8.4", "Attribute confidentiality and de-identification", (deidentified,)),
            DocumentSection("N.8.5", "Digital signatures, encrypted attributes", ("Not supported.",)),
            DocumentSection(
                "N.8.6", "Time synchronization", ("By the operating system; the node sets and serves no time.",)
            ),
        ),
    )


def details() -> DocumentSection:
    """Return A.C."""
    ciphers = DocumentTable("tls 1.2 cipher suites", ("Cipher suite (OpenSSL)",), tuple((one,) for one in tls.CIPHERS))
    events = DocumentTable("audit events", ("EventID", "Event"), tuple(messages.EVENTS.items()))
    types = DocumentTable("audit event types", ("EventTypeCode", "Type"), tuple(messages.TYPES.items()))
    lines = (
        f"Lowest version: {tls.LOWEST.name.replace('TLSv1_', 'TLS 1.')}; TLS 1.3 with all of its cipher suites.",
        "Renegotiation, compression, session tickets: off. Every connection proves its certificate anew.",
        "RSA keys below 2048 bits and SHA-1 signatures are refused (security level 2).",
        "A peer's certificate must come from a CA of `tls.ca_file`, name the host that is called or show what "
        "`certificates` says, and not be on a list of `tls.crl_file`.",
    )
    return DocumentSection(
        "A.C",
        "Security details",
        (),
        (
            DocumentSection("A.C.1", "TLS", (bullets(lines), ciphers)),
            DocumentSection("A.C.2", "Audit messages", ("When each is sent: [audit](admin/audit.md).", events, types)),
        ),
    )
