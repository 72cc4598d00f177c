"""The node as origin server of DICOMweb (PS3.18), for N.5.3: resources, keys and statuses from the code."""

from typing import Final

from dicomnode.conformance.document import DocumentTable
from dicomnode.dicomweb import query, store
from dicomnode.dicomweb.service import PREFIX, ROUTES
from dicomnode.reception.holdings import KEYS, LEVELS

_WHAT: Final = (
    "Studies service as origin server (`console.dicomweb`), on the console's address: images that are held, and the "
    "newest results that stand. Bearer token (`dicomnode console token`), or a user's session; to store takes a token "
    "that stands for a caller of `node.callers`."
)
_SEARCH: Final = (
    "Search: wild cards, date and time ranges, lists of UIDs; names without regard to case. No fuzzy matching (Warning "
    "299), no sequence attributes. `limit`, `offset`, `includefield` (any attribute in front of the pixels; `all`). A "
    "key that cannot be matched is answered with 400, since it would widen the search; nothing found with 204."
)
_RETRIEVE: Final = (
    "Retrieve: objects as stored (`transfer-syntax=*`) or in Explicit VR Little Endian, which is the default, decoded "
    "where they are compressed; any other transfer syntax is answered with 406. Metadata as DICOM JSON with bulk data "
    "by URI. Frames decoded, or as stored under their own media type. Rendered as image/jpeg or image/png with "
    "`window`, `viewport` and `quality`; structured reports as text/html, encapsulated PDF as application/pdf. "
    "`annotation` and `iccprofile` are ignored."
)
_STORE: Final = (
    'Store: `multipart/related; type="application/dicom"`; answers as DICOM JSON with 200, 202 or 409. Objects are '
    "kept, refused and put in quarantine as those of a C-STORE are, and answered when they are durable."
)


def origin_server() -> tuple[str | DocumentTable, ...]:
    """Return what N.5.3 says of it."""
    resources = tuple((one.method, f"`{PREFIX}{one.path}`") for one in ROUTES)
    keys = tuple(
        (level.lower(), ", ".join(one for one in KEYS[level] if one not in query.NOT_MATCHED)) for level in LEVELS
    )
    reasons = tuple((f"0x{reason:04X}", when) for reason, when in store.REASONS)
    return (
        _WHAT,
        DocumentTable("DICOMweb resources", ("Method", "Resource"), resources),
        _SEARCH,
        DocumentTable("QIDO-RS keys, matched and returned", ("Level", "Attributes"), keys),
        _RETRIEVE,
        _STORE,
        DocumentTable("STOW-RS failure reasons", ("Reason", "When"), reasons),
    )
