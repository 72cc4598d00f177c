"""Every association that the node requests goes through `association.connect`: what holds there holds for all."""

import ast
from collections.abc import Iterator

from tests.conftest import ROOT

#: Where an association may be requested, and where `connect`'s entity hands the request on to pynetdicom.
_ALLOWED = {("network/association.py", "associate"), ("network/association.py", "RequestorEntity")}
_ALLOWED |= {("network/transport.py", "associate")}
#: Calls that request an association, or make what can.
_WAYS = ("associate", "RequestorEntity", "Association")


def ways_out(source: str) -> Iterator[str]:
    """Names in `_WAYS` that are called, or handed to somebody else to call."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "associate":
            yield node.attr
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in _WAYS and name != "associate":
                yield name


def test_nobody_else_requests_an_association() -> None:
    package = ROOT / "dicomnode"
    found = {
        (str(path.relative_to(package)), way)
        for path in package.rglob("*.py")
        for way in ways_out(path.read_text("utf-8"))
    }
    assert found == _ALLOWED


def test_each_way_is_seen() -> None:
    for line in (
        "AE('X').associate('h', 1)",
        "ask = ae.associate",
        "RequestorEntity('X')",
        "association.Association(a)",
    ):
        assert list(ways_out(line))
    assert not list(ways_out("class Entity:\n    def associate(self): ...\nassociated(peer)"))
