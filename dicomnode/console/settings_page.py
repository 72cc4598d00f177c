"""The configuration as the console runs by it, with secrets hidden."""

import re
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel
from starlette.responses import Response

from dicomnode.console.site import ConsoleSite, Visit

HIDDEN = "(hidden)"
#: Keys whose value is a secret where it stands in the file itself. Names of files and variables are shown.
_SECRET = re.compile(r"password|token|secret|passphrase", re.IGNORECASE)
_PLACE = re.compile(r"^(env|file):")


def configuration(site: ConsoleSite, visit: Visit) -> Response:
    """Show every table with its keys."""
    tables = [table for key in type(site.config).model_fields for table in _tables(key, getattr(site.config, key))]
    return site.page(visit, "configuration.html", tables=tables)


def _tables(name: str, value: Any) -> list[tuple[str, list[tuple[str, str]]]]:
    if isinstance(value, tuple) and value and all(isinstance(one, BaseModel) for one in value):
        return [table for number, one in enumerate(value, 1) for table in _tables(f"{name}[{number}]", one)]
    if not isinstance(value, BaseModel):
        return []
    plain: list[tuple[str, str]] = []
    inner: list[tuple[str, list[tuple[str, str]]]] = []
    for key in type(value).model_fields:
        one = getattr(value, key)
        deeper = _tables(f"{name}.{key}", one)
        inner += deeper
        if not deeper:
            plain.append((key, shown(key, one)))
    return [(name, plain), *inner]


def shown(key: str, value: Any) -> str:
    """Return a value as it may be seen."""
    if value is None or value in ("", ()):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(shown(key, one) for one in value)
    text = str(value)
    is_place = _PLACE.match(text) is not None or key.endswith(("_file", "_env"))
    if _SECRET.search(key) and not is_place:
        return HIDDEN
    return _without_password(text) if "://" in text else text


def _without_password(url: str) -> str:
    """Return a URL without what may be a secret in it: password and query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return HIDDEN
    host = parts.netloc.rpartition("@")[2]
    user = f"{parts.username}:{HIDDEN}@" if parts.password else f"{parts.username}@" if parts.username else ""
    return urlunsplit((parts.scheme, user + host, parts.path, HIDDEN if parts.query else "", ""))
