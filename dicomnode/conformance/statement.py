"""The whole statement in the order of PS3.2 annex N, and as what it is written: Markdown or JSON."""

import json
from typing import Final

from dicomnode.conformance import network_part, objects_part, parameters, security_part
from dicomnode.conformance.document import DocumentSection, DocumentTable
from dicomnode.conformance.services import services

#: Where the repository keeps it, and how it is written again.
COMMITTED: Final = "docs/conformance.md"
COMMAND: Final = f"dicomnode conformance --out {COMMITTED}"
_TITLE = "# DICOM conformance statement of dicomnode"


def build() -> list[DocumentSection]:
    """Return the sections. It takes some seconds: every object is encoded about ten times."""
    objects = objects_part.all_contents()
    offered = services(objects_part.sent(objects))
    return [
        network_part.cover(),
        network_part.overview(offered, objects_part.created_table(objects)),
        network_part.contents_page(),
        network_part.introduction(),
        network_part.model(offered),
        network_part.interoperability(offered),
        _configuration(),
        network_part.details(offered),
        security_part.security(),
        objects_part.iods(objects),
        objects_part.structured_reports(),
        security_part.details(),
        objects_part.mapping(),
        objects_part.code_sets(),
    ]


def _configuration() -> DocumentSection:
    text = (
        "Everything is configured in one file, `ae_config.toml`; AE titles, hosts, ports and time-outs of peers "
        "included. Changes count from the next start; files of certificates are read again when they change. What is "
        "listed here has to do with the network and with what leaves the node; `ae_config.toml` explains every key."
    )
    return DocumentSection("N.6", "Configuration", (text, parameters.parameters()))


def markdown(sections: list[DocumentSection]) -> str:
    """Return the statement as Markdown."""
    note = (
        f"Written by `{COMMAND}` from the code and the configuration's model; a test compares. Do not edit it: change "
        "what it tells of, and write it again. Numbers are those of PS3.2 annex N."
    )
    return "\n\n".join([_TITLE, note, *(section.markdown() for section in sections)]) + "\n"


def as_json(sections: list[DocumentSection]) -> str:
    """Return the statement as JSON: each table as a list of objects by column."""
    return json.dumps([section.as_json() for section in sections], indent=2, ensure_ascii=False) + "\n"


def table(sections: list[DocumentSection], name: str) -> DocumentTable:
    """Return the table of this name. Raises KeyError."""
    for section in (below for one in sections for below in one.walk()):
        for block in section.blocks:
            if isinstance(block, DocumentTable) and block.name == name:
                return block
    raise KeyError(name)
