"""The HTTP interface of a node as an OpenAPI description, made of its route tables: console, DICOMweb, monitoring.

What a table does not say, parameters and forms, stands here; a test looks whether each route is described.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dicomnode.console.actions import ACTIONS
from dicomnode.console.routes import ROUTES
from dicomnode.dicomweb.service import PREFIX
from dicomnode.dicomweb.service import ROUTES as WEB_ROUTES
from dicomnode.reception.holdings import KEYS

MONITORING = ("/live", "/ready", "/metrics")
FORM = "application/x-www-form-urlencoded"
#: By path: what a console page looks for in its URL, and in its form.
_QUERIES: Mapping[str, Sequence[str]] = {
    "/studies": ("state",),
    "/worklist": ("date",),
    "/login/provider/back": ("code", "state", "iss", "error"),
}
_FORMS: Mapping[str, Sequence[str]] = {
    "/login": ("name", "password"),
    "/logout": (),
    "/studies": ("patient", "accession", "sender", "since", "text", "state", "after", "after_at"),
    "/study/{study}/{action}": ("seen", "profile", "destination", "because"),
    "/peers/{number}": (),
    "/rules": ("calling", "called", "attributes"),
}
_VIEWS = ("viewport", "window", "quality", "accept", "iccprofile")
_ACCEPTS = (
    "*/*", "application/dicom+json", 'multipart/related; type="application/dicom"', "image/jpeg", "image/png",
    'multipart/related; type="application/octet-stream"', "application/json", "text/html",
)  # fmt: skip


def description(known: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """OpenAPI 3.1. `known`: values by the name of a parameter, which are asked for beside any others."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        form = ("csrf", *_FORMS[route.path]) if route.method == "POST" else None
        operation = _operation(route.path, _QUERIES.get(route.path, ()) if form is None else (), known)
        if form is not None:
            operation["requestBody"] = _form(form, known)
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    for web in WEB_ROUTES:
        names = _parameters(web.path)
        operation = _operation(PREFIX + web.path, names if web.method == "GET" else (), known)
        if web.method == "POST":
            kinds = ('multipart/related; type="application/dicom"; boundary=b', "application/dicom")
            binary = {"schema": {"type": "string", "format": "binary"}}
            operation["requestBody"] = {"content": {"application/octet-stream": binary}}
            operation["parameters"].append(_parameter("Content-Type", "header", {"enum": list(kinds)}))
        else:
            operation["parameters"].append(_parameter("Accept", "header", {"enum": list(_ACCEPTS)}))
        paths.setdefault(PREFIX + web.path, {})[web.method.lower()] = operation
    for path in MONITORING:
        paths[path] = {"get": _operation(path, (), known)}
    return {"openapi": "3.1.0", "info": {"title": "dicomnode", "version": "1"}, "paths": paths}


def _parameters(path: str) -> tuple[str, ...]:
    if path.endswith(("rendered", "thumbnail")):
        return _VIEWS
    if path in ("/studies", "/series", "/instances") or path.endswith(("/series", "/instances")):
        keys = dict.fromkeys(key for level in KEYS.values() for key in level)
        return (*keys, "includefield", "limit", "offset", "fuzzymatching", "accept", "00100020")
    return ("accept",)


def _operation(path: str, query: Sequence[str], known: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    names = [part.partition("}")[0] for part in path.split("{")[1:]]
    parameters = [_parameter(name, "path", _value(name, known)) for name in names]
    parameters += [_parameter(name, "query", _value(name, known)) for name in query]
    return {"parameters": parameters, "responses": {"default": {"description": "an answer"}}}


def _parameter(name: str, where: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": where, "required": where != "query", "schema": schema}


def _form(names: Sequence[str], known: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    properties = {name: _value(name, known) for name in names}
    schema = {"type": "object", "properties": properties, "required": ["csrf"], "additionalProperties": False}
    return {"required": True, "content": {FORM: {"schema": schema}}}


def _value(name: str, known: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    values = [*known.get(name, ()), *(ACTIONS if name == "action" else ())]
    if name == "csrf":
        return {"enum": values}
    return {"anyOf": [{"enum": values}, {"type": "string"}]} if values else {"type": "string"}
