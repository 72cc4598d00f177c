"""Reconstruction kernels by vendor family: is an image sharp (lung), medium or soft?

Only the coarse family matters here: it ranks series and flags doubt. The names are the vendors' own (Convolution Kernel
(0018,1210)); the families follow common usage in chest CT, e.g. the pairs of COPDGene (Regan et al. 2010,
doi:10.3109/15412550903499522: Siemens B31f/B46f, GE STANDARD/BONE, Philips B/D).
"""

import re
from typing import Literal

from pydicom import Dataset

from dicomnode.analysis.series.headers import string, strings

Family = Literal["lung", "medium", "soft", "unknown"]

#: By one name, how a vendor's Manufacturer (0008,0070) begins, in lower case and with a space at its end.
VENDORS: dict[str, tuple[str, ...]] = {
    "Siemens": ("siemens",),
    "GE": ("ge ", "ge_", "gems"),
    "Philips": ("philips",),
    "Canon/Toshiba": ("canon", "toshiba"),
}
GE: dict[str, Family] = {
    "SOFT": "soft",
    "STANDARD": "medium",
    "STND": "medium",
    "DETAIL": "medium",
    "CHEST": "medium",
    "LUNG": "lung",
    "BONE": "lung",
    "BONEPLUS": "lung",
    "EDGE": "lung",
    "ULTRA": "lung",
}
#: Plain words for what the kernel is for: they mean the same whoever writes them. Coded names mean something only with
#: their vendor (Philips' B is soft, Siemens' B60f is sharp).
WORDS: dict[str, Family] = {"SOFT": "soft", "STANDARD": "medium", "LUNG": "lung", "BONE": "lung"}
PHILIPS: dict[str, Family] = {
    "A": "soft",
    "B": "soft",
    "UA": "soft",
    "UB": "soft",
    "C": "medium",
    "UC": "medium",
    "D": "lung",
    "E": "lung",
    "F": "lung",
    "L": "lung",
    "YA": "lung",
    "YB": "lung",
    "YC": "lung",
    "YD": "lung",
}


def name(dataset: Dataset) -> str:
    """Return the Convolution Kernel as one text ("Br40f 3"), "" where there is none."""
    return " ".join(strings(dataset, "ConvolutionKernel")).strip()


def vendor(manufacturer: str) -> str:
    """Whose scanner it is, by one name: vendors have changed theirs. That of another vendor as it stands, stripped."""
    stated = manufacturer.strip()
    begins = stated.lower()
    return next((known for known, beginnings in VENDORS.items() if f"{begins} ".startswith(beginnings)), stated)


def family(manufacturer: str, kernel: str) -> Family:
    """Return the family of a kernel name as `name` gives it, by the rules of its manufacturer.

    Of others, only plain words count.
    """
    made_by, word = vendor(manufacturer), (kernel.split() or [""])[0].upper()
    if made_by == "Siemens":
        found = re.fullmatch(r"[BIQ][A-Z]?(\d\d)[A-Z]?", word)
        return _by_number(int(found[1]), 40, 50) if found else "unknown"
    if made_by == "GE":
        return GE.get(word.rstrip("+"), "unknown")
    if made_by == "Philips":
        return PHILIPS.get(word, "unknown")
    if made_by == "Canon/Toshiba":
        found = re.fullmatch(r"FC(\d\d)", word)
        # FC01 to FC19 body, FC20 to FC29 head; FC30 to FC39 bone, FC50 to FC59 lung, from FC80 high resolution.
        return _by_number(int(found[1]), 30, 30) if found else "unknown"
    return WORDS.get(word, "unknown")


def family_of(dataset: Dataset) -> Family:
    """Return the family of the kernel that a header names."""
    return family(string(dataset, "Manufacturer"), name(dataset))


def _by_number(sharpness: int, medium: int, lung: int) -> Family:
    return "lung" if sharpness >= lung else "medium" if sharpness >= medium else "soft"
