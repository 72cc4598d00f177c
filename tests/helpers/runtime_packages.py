"""The packages that a node needs to run, with those that they need, as they are installed here; and their licences."""

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers.prerequisites import ROOT

#: SPDX names, and words of older metadata, that allow use and distribution in any program.
_PERMISSIVE = re.compile(
    r"^(MIT(-0|-CMU)?( License)?|(0BSD|BSD([ -]?[23][ -]Clause)?)( License)?|Apache(-2\.0)?( Software)?( License.*)?"
    r"( WITH LLVM-exception)?|ISC( License( \(ISCL\))?)?|PSF-2\.0|Python Software Foundation License|BSL-1\.0|Zlib"
    r"|zlib/libpng( License)?|CC0-1\.0|OFL-1\.1|MPL-2\.0|Mozilla Public License 2\.0 \(MPL 2\.0\))$"
)


def requirements() -> list[Requirement]:
    """What pyproject.toml asks for at run time, with `training`: not what was asked for at the last installation."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(one) for one in (*project["dependencies"], *project["optional-dependencies"]["training"])]


def closure(wanted: Iterable[Requirement]) -> dict[str, Distribution]:
    """All packages that these need on this platform, by their canonical names."""
    found: dict[str, Distribution] = {}
    waiting = [(one, "") for one in wanted]
    seen = set()
    while waiting:
        one, extra = waiting.pop()
        if one.marker is not None and not one.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(one.name)
        for inner in ("", *one.extras):
            if (name, inner) not in seen:
                seen.add((name, inner))
                found[name] = distribution(name)
                waiting += [(Requirement(text), inner) for text in found[name].requires or ()]
    return dict(sorted(found.items()))


def is_permissive(package: Distribution) -> bool:
    """Whether its metadata name permissive licences only, or a choice that has one."""
    return all(any(map(_PERMISSIVE.match, choice)) for choice in licences(package)) and bool(licences(package))


def licences(package: Distribution) -> list[list[str]]:
    """The licences that hold together; of each list one may be chosen. Empty: the metadata name none."""
    told = package.metadata
    if expression := told.get("License-Expression"):
        parts = re.split(r" AND ", expression.replace("(", "").replace(")", ""))
        return [part.split(" OR ") for part in parts]
    classifiers = [c.rpartition(" :: ")[2] for c in told.get_all("Classifier") or () if c.startswith("License ::")]
    if classifiers := [c for c in classifiers if c != "OSI Approved"]:
        return [[one] for one in classifiers]
    if words := (told.get("License") or "").strip():
        return [[one] for one in words.splitlines()[0].split(" AND ")]
    return [[" ".join(text.split())[:14]] for text in _files(package)]


def _files(package: Distribution) -> list[str]:
    """The licence files of a package whose metadata name no licence."""
    names = [f for f in package.files or () if re.search(r"(LICEN[CS]E|COPYING)", str(f).rpartition("/")[2])]
    return [f.read_text() for f in names]
