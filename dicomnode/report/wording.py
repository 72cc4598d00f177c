"""Texts that every object carries. Pure ASCII, which is valid in any character set of the source."""

import unicodedata
from collections.abc import Iterable
from typing import Final

from dicomnode.analysis.findings import Findings, Flag, Risk, Severity
from dicomnode.words.numerals import apart

RESEARCH_USE = "Research use only; check the images first."
NO_DOUBTS = "The automatic checks raised no doubts about input or result."
RESEARCH_BAND = "RESEARCH USE ONLY - NOT FOR DIAGNOSIS"
DEMO = "SYNTHETIC DEMO MODEL - NOT CLINICAL"
LIMITS = (
    "Not a medical device. Computed automatically from one CT series, without human review. "
    "Not validated outside systemic sclerosis."
)
#: Versions from here on have too many digits to name two of them beside the demonstration's warning.
_LONG_VERSION = 100

_SPELT = str.maketrans(
    {
        "\N{EN DASH}": "-",
        "\N{EM DASH}": "-",
        "\N{MINUS SIGN}": "-",
        "\N{RIGHTWARDS ARROW}": "->",
        "\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}": '"',
        "\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}": '"',
        "\N{LEFT DOUBLE QUOTATION MARK}": '"',
        "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
        "\N{MULTIPLICATION SIGN}": "x",
        "\N{LESS-THAN OR EQUAL TO}": "<=",
        "\N{GREATER-THAN OR EQUAL TO}": ">=",
        "\N{DEGREE SIGN}": " degrees",
        # ISO_IR 13 (Japanese) shows these two ASCII codes as a yen sign and an overline.
        "\\": "/",
        "~": "-",
    }
)


def plain(text: str) -> str:
    """Return the text in printable ASCII.

    Common signs are spelt out, accents dropped, what is left becomes a question mark.

    The objects keep the source's Specific Character Set (PS3.3 C.12.1.1.2). ASCII letters have the same codes in every
    character set that DICOM allows, so our own text needs no encoding that could fail.
    """
    spelt = unicodedata.normalize("NFKD", text.translate(_SPELT))
    letters = "".join(c for c in spelt if not unicodedata.combining(c)).encode("ascii", "replace").decode("ascii")
    return "".join(c if c.isprintable() else " " for c in letters)


def is_demo(findings: Findings) -> bool:
    """Whether the risk comes from the synthetic demonstration model, which every object of the run must then say."""
    return findings.risk is not None and findings.risk.intended_use == "synthetic-demo"


def describe(label: str, findings: Findings, version: int = 1) -> str:
    """Return what a list of series shows, at most 64 characters (VR LO) for labels of at most 8.

    A later version says which one it replaces.
    """
    number, older = (f"v{version}", f"v{version - 1}") if version < _LONG_VERSION else ("new", "old")
    name = label if version == 1 else f"{label} {number}, replaces {older}"
    if not is_demo(findings):
        return f"{name}: research use only"
    return f"{name}: {DEMO}, research use only" if version == 1 else f"{name}: {DEMO}"


def warnings(findings: Findings) -> tuple[str, ...]:
    """Return the sentences that a reader must see before any number."""
    return (*((f"{DEMO}.",) if is_demo(findings) else ()), RESEARCH_USE, LIMITS, *made_from(findings))


def made_from(findings: Findings) -> tuple[str, ...]:
    """Say whose disease the risk model was made from, to which site it was recalibrated, and how far its patients are.

    The distance is a sentence of its own; a model of before has no reference distribution, and it says so.
    """
    if findings.risk is None:
        return ()
    disease, site = plain(findings.risk.disease), plain(findings.risk.recalibrated_to)
    parts = [f"was made from patients with {disease}"] if disease else []
    parts += [f"was recalibrated to {site}"] if site else []
    return (*((f"The risk model {' and '.join(parts)}.",) if parts else ()), population_words(findings))


def population_words(findings: Findings) -> str:
    """Say in a sentence where the scan lies among those that the risk model was made on."""
    of = findings.population
    if of is None:
        return "How far the scan lies from the risk model's population is not known: no reference distribution."
    where = "outside the population the risk model was made on" if of.outside else "within its population"
    return (
        f"Of the {of.patients} patients that the risk model was made on, {of.percentile:.0f} % lie no further out than "
        f"this scan: it counts as {where} (score {apart(of.score, of.limit, 2)}, outside above {of.limit:.2f})."
    )


#: Flags about order and priors: of the surroundings, not of what was measured. By how their codes begin.
_ADMINISTRATIVE: Final = ("order-", "worklist-", "priors-", "prior-")
_RANK: Final[tuple[Severity, ...]] = ("error", "warning", "info")


def is_administrative(flag: Flag) -> bool:
    """Whether a flag is about order or priors, and not about image or result."""
    return flag.code.startswith(_ADMINISTRATIVE)


def ranked(flags: Iterable[Flag]) -> list[Flag]:
    """Return the flags as a reader should see them: clinical before administrative ones, the worst of each first."""
    return sorted(flags, key=lambda flag: (is_administrative(flag), _RANK.index(flag.severity)))


def flag_line(flag: Flag) -> str:
    """Return a flag in one line."""
    return f"{flag.severity.upper()}: {flag.text}"


def worst(flags: Iterable[Flag]) -> Flag | None:
    """Return the worst clinical doubt; None where there is none beyond what is good to know."""
    doubts = [flag for flag in ranked(flags) if flag.severity != "info" and not is_administrative(flag)]
    return doubts[0] if doubts else None


def has_spread(risk: Risk) -> bool:
    """Whether the bounds of a prediction tell anything: of a single model they are its own value."""
    return any(h.lower != h.upper for h in risk.horizons)
