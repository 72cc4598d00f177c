"""A bundle's golden case: a stored scan with measured numbers, and the risk that the bundle must give for it."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load

from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.analysis.findings import Risk
from dicomnode.analysis.risk.bundle import Bundle
from dicomnode.analysis.risk.manifest import Golden, first_error
from dicomnode.analysis.risk.queries import PriorScan
from dicomnode.errors import BundleError, RefusedError
from dicomnode.words.numerals import plural

NAME = "golden.json"


def check(bundle: Bundle, contents: Mapping[str, bytes]) -> None:
    """Let a bundle reproduce its golden case.

    Args:
        bundle: to be asked.
        contents: its files but for the models, by name, as they were when their digests were checked.

    Raises:
        BundleError: golden.json or the scan does not fit, or the answer is another.
    """
    place = bundle.folder / NAME
    golden = parse(contents[NAME], place)
    if golden.scan not in contents:
        raise BundleError(f"{bundle.folder / 'model.toml'}: the table files has no sha256 of {golden.scan}")
    try:
        found = answer(bundle, golden, contents[golden.scan]).horizons
    except RefusedError as error:
        raise BundleError(f"{place}: {error}") from None
    if [h.years for h in found] != [h.years for h in golden.expected]:
        raise BundleError(f"{place}: expected must be for the years {[h.years for h in found]}")
    for got, wanted in zip(found, golden.expected, strict=True):
        pairs = ((got.probability, wanted.probability), (got.lower, wanted.lower), (got.upper, wanted.upper))
        if not all(abs(a - b) <= golden.tolerance for a, b in pairs):  # NaN fails too
            raise BundleError(
                f"the bundle {bundle.name!r} in {bundle.folder} does not reproduce its golden case at "
                f"{plural(got.years, 'year')}: found {got.probability:.4f} "
                f"({got.lower:.4f} to {got.upper:.4f}), expected "
                f"{wanted.probability:.4f} ({wanted.lower:.4f} to {wanted.upper:.4f}) within {golden.tolerance}. Its "
                "results would differ from the evaluated ones: compare the software versions in model.toml with the "
                "installed ones"
            )


def answer(bundle: Bundle, golden: Golden, stored: bytes) -> Risk:
    """Return what a bundle says of its golden case.

    Args:
        bundle: to be asked.
        golden: the case.
        stored: the content of its scan's file.

    Raises:
        BundleError: that is no scan.
        RefusedError: its features do not suffice.
    """
    volume, labels = scan(golden, stored, bundle.folder / golden.scan)
    prior = PriorScan(golden.years, bundle.sha256, golden.codes) if golden.codes else None
    return bundle.predict(volume, labels, golden.features, prior, golden.scanner)


def parse(text: bytes, place: Path) -> Golden:
    """Return the golden case's description from golden.json; `place` names the file in messages.

    Raises:
        BundleError: it does not fit.
    """
    try:
        return Golden.model_validate(json.loads(text))
    except ValidationError as error:
        raise BundleError(f"{place}: {first_error(error)}") from None
    except ValueError as error:
        raise BundleError(f"{place}: {error}") from None


def scan(golden: Golden, stored: bytes, place: Path) -> tuple[Volume, Labels]:
    """Return the golden case's scan, stored as arrays so that it does not hang on a version of the phantom.

    Raises:
        BundleError: `stored` is no safetensors of `hu` (z, y, x; int16) and `labels` (the same shape, uint8).
    """
    try:
        arrays = load(stored)
        hu, labels = arrays["hu"].numpy(), arrays["labels"].numpy()
    except (SafetensorError, KeyError, TypeError) as error:  # TypeError: a type that numpy has not
        raise BundleError(f"{place} is not a golden scan (arrays hu and labels): {error}") from None
    if hu.ndim != 3 or hu.dtype != np.int16 or labels.shape != hu.shape or labels.dtype != np.uint8:
        raise BundleError(
            f"{place} is not a golden scan: hu is {hu.dtype} {hu.shape}, labels are {labels.dtype} {labels.shape}; "
            "int16 and uint8 of one shape (z, y, x) are needed"
        )
    axes = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    return Volume(hu, golden.spacing_mm, (0.0, 0.0, 0.0), axes, frames=()), labels
