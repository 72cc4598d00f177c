"""Weights of other people's networks that segment lungs: which there are, and whether what lies here is whole.

`verify` finds what changed since the installation; see `published` for how files come here.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dicomnode.downloads import Installed, PublishedFile, installed, keep
from dicomnode.errors import BundleError, UsageError
from dicomnode.files import sha256_of

if TYPE_CHECKING:
    from dicomnode.analysis.risk.signature import TrustedKey

_LUNGMASK = ("https://github.com/JoHof/lungmask/releases/download/v0.0/", "use `dicomnode weights install`")

KNOWN = (
    PublishedFile("R231", "unet_r231-d5d2fc3d.pth", "right and left lung", *_LUNGMASK),
    PublishedFile("LTRCLobes", "unet_ltrclobes-3a07043d.pth", "the five lobes", *_LUNGMASK),
    PublishedFile(
        "R231CovidWeb",
        "unet_r231covid-0de78a7e.pth",
        "right and left lung, also trained on images from the web",
        *_LUNGMASK,
    ),
)


def find(name: str) -> PublishedFile:
    """Return the published file of this name (or file name). Raises UsageError."""
    for known in KNOWN:
        if name.lower() in (known.name.lower(), known.file.lower()):
            return known
    raise UsageError(f"{name}: no such weights; known: {', '.join(k.name for k in KNOWN)}")


def install(file: Path, folder: Path) -> Installed:
    """Copy a file that was carried here. Its name tells which it is.

    Raises:
        UsageError: it cannot be read, or its name is none of the known ones.
        WeightsError: its digest is another.
    """
    known = find(file.name)
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{known.file}.copy"
    try:
        shutil.copyfile(file, part)
    except OSError as e:
        raise UsageError(f"{file}: cannot copy to {folder} ({e.strerror})") from e
    return keep(known, part, folder, str(file))


@dataclass(frozen=True)
class WeightsVerdict:
    """Whether a file or a bundle is what was installed, and what to do if not."""

    name: str
    ok: bool
    text: str


def verify(folder: Path, trusted: "Sequence[TrustedKey] | None" = None) -> Iterator[WeightsVerdict]:
    """Compare all that is installed with its digests; recompute each bundle's golden case.

    `trusted`: whose signature each bundle must bear; None: it needs none.
    """
    for name, here in sorted(installed(folder).items()):
        found = sha256_of(here.path) if here.path.is_file() else None
        if found == here.sha256:
            yield WeightsVerdict(name, True, f"sha256 {found}")
        else:
            what = "is missing" if found is None else f"has sha256 {found}, but {here.sha256} was installed"
            yield WeightsVerdict(name, False, f"{what}: fetch or install it again")
    from dicomnode.analysis.risk import load_bundle, signature  # noqa: PLC0415  (imports torch)
    from dicomnode.analysis.risk.reference import NO_REFERENCE  # noqa: PLC0415

    for path in sorted(folder.glob("*/model.toml")):
        try:
            loaded = load_bundle.load(path.parent, allow_demo=True, trusted=trusted)
            signed = signature.read(path.parent)
        except BundleError as e:
            yield WeightsVerdict(path.parent.name, False, str(e))
        else:
            whose = "not signed" if signed is None else f"signature {signed.key} not checked: give --key"
            if trusted is not None and signed is not None:
                whose = f"signed with the trusted key {signed.key}"
            known = "" if loaded.reference is not None else f"; {NO_REFERENCE}"
            text = f"{loaded.version}: hashes and golden case verified; {whose}{known}"
            yield WeightsVerdict(path.parent.name, True, text)
