"""The configuration parameters that decide about DICOM, from the configuration's model: key, default, meaning."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from dicomnode.config import Config
from dicomnode.conformance.document import DocumentTable

#: Tables of the configuration that have to do with the network and with what leaves the node.
TABLES: Final = (
    "node", "tls", "storage", "settle", "results", "destination", "routing", "worklist", "priors", "ups", "mpps",
    "audit", "alerts", "monitoring", "console",
)  # fmt: skip


def parameters() -> DocumentTable:
    """Return the keys of these tables."""
    rows = dict.fromkeys(row for name in TABLES for row in _rows(Config, name, ""))
    return DocumentTable("configuration", ("Parameter", "Default", "Meaning"), tuple(rows))


def _rows(model: type[BaseModel], key: str, above: str) -> Iterator[tuple[str, str, str]]:
    """Yield the keys of a table; those that not every kind of it has alike with the kinds that have them so."""
    field = model.model_fields[key]
    name = f"{above}.{key}".strip(".")
    inner = _tables_in(field.annotation)
    found: dict[tuple[str, str, str], list[str]] = {}
    for table in inner:
        for inner_key in table.model_fields:
            for row in _rows(table, inner_key, name):
                found.setdefault(row, []).append(_kind(table))
    for (parameter, default, meaning), kinds in found.items():
        of_kinds = "" if len(kinds) == len(inner) else f" ({', '.join(kinds)})"
        yield f"{parameter}{of_kinds}", default, meaning
    if not inner:
        yield f"`{name}`", _shown(field.get_default(call_default_factory=False)), (field.description or "")


def _kind(table: type[BaseModel]) -> str:
    return str(table.model_fields["kind"].default) if "kind" in table.model_fields else table.__name__


def _tables_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for part in get_args(annotation) for table in _tables_in(part)]


def _shown(value: Any) -> str:
    """Return a default as the file would have it; "required" where there is none."""
    if value is PydanticUndefined:
        return "required"
    if value is None or value in ((), "", {}):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return value.as_posix() if isinstance(value, Path) else str(value)
