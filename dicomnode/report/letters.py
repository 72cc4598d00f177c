"""Which letters pages and PDF can show: names of patients come in every script."""

import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping, MutableSequence
from functools import cache
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Final

import manimgx_fonts
import noto_cjk_sans_jp_regular
from fontTools import unicodedata as scripts
from fontTools.ttLib import TTFont
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.dataset import Dataset

from dicomnode.report import source
from dicomnode.report.wording import plain
from dicomnode.words.numerals import plural

#: Latin, Greek, Cyrillic, Hebrew: comes with matplotlib.
MAIN: Final = "DejaVu Sans"
_CJK: Final = "Noto Sans CJK JP"
#: Goes before the main font, which has no Urdu: letters of two fonts do not join.
ARABIC: Final = "Noto Sans Arabic"
ARABIC_LETTERS: Final = re.compile("[\u0600-\u06ff\u0750-\u077f\u0870-\u08ff\ufb50-\ufdff\ufe70-\ufeff]")
#: Noto Sans for the scripts that the two others lack.
_SCRIPTS: Final = (
    *("Thai", "Lao", "Khmer", "Myanmar", "Devanagari", "Bengali", "Gurmukhi", "Gujarati", "Oriya", "Tamil", "Telugu"),
    *("Kannada", "Malayalam", "Sinhala", "Georgian", "Armenian", "Ethiopic", "Arabic", "Symbols"),
)
#: Signs upon one letter; names have at most three. More would climb over the lines above.
_MOST_MARKS: Final = 4
#: They choose between forms of one letter, and have no glyphs; names in Japanese have them.
_VARIATIONS: Final = re.compile("[\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_JOINERS: Final = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
_FIRST_BEYOND_EUROPE: Final = "\u0590"


@cache
def fonts() -> dict[str, str]:
    """Return the path of each font by its family, in the order in which letters are looked for."""
    noto = resources.files(manimgx_fonts)
    return {
        MAIN: str(_dejavu() / "DejaVuSans.ttf"),
        _CJK: str(resources.files(noto_cjk_sans_jp_regular) / noto_cjk_sans_jp_regular.FONT_FILE),
        "Noto Sans": str(noto / "NotoSans[wght].ttf"),
        **{f"Noto Sans {script}": str(noto / f"NotoSans{script}[wght].ttf") for script in _SCRIPTS},
    }


def font_folders() -> list[str]:
    """Return the folders of the fonts."""
    return sorted({str(Path(path).parent) for path in fonts().values()})


def _dejavu() -> Path:
    import matplotlib  # noqa: PLC0415  (half a second that no start needs)

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


class _Letters(Mapping[str, frozenset[int]]):
    """The letters of each font, read when first asked for: all fonts take a second, Latin names need the first."""

    def __init__(self) -> None:
        self._read: dict[str, frozenset[int]] = {}

    def __getitem__(self, family: str) -> frozenset[int]:
        if family not in self._read:
            with TTFont(fonts()[family], lazy=True) as font:
                self._read[family] = frozenset(font.getBestCmap() or {})
        return self._read[family]

    def __iter__(self) -> Iterator[str]:
        return iter(fonts())

    def __len__(self) -> int:
        return len(fonts())


@cache
def _letters() -> _Letters:
    return _Letters()


def families(text: str) -> list[str]:
    """Return the fonts that a text needs, in the order in which its letters are looked for."""
    lacking, needed = {ord(c) for c in text}, [MAIN]
    if ARABIC_LETTERS.search(text):
        needed.insert(0, ARABIC)
    for family, letters in _letters().items():
        if family not in needed and lacking & letters:
            needed.append(family)
        lacking -= letters
        if not lacking:
            break
    return needed


def shown(text: str) -> str:
    """Return what can be shown of a text, without signs that control direction or layout.

    Letters without a glyph are written in ASCII if they can be; else their number and script stand in brackets.
    """
    kept = "".join(_drawable(_printable(_composed(text))))
    parts: list[tuple[str, str]] = []  # the script that is missing, or "", and the letters
    for script, run in groupby(kept, lambda c: "" if _has_glyph(c) else _script(c)):
        letters = "".join(run)
        spelt = plain(letters) if script else letters
        if "?" not in spelt or not script:
            parts.append(("", spelt))
        elif [s for s, _ in parts[-2:-1]] == [script] and parts[-1][1].isspace():
            parts[-2:] = [(script, f"{parts[-2][1]} {letters}")]  # words of one name
        else:
            parts.append((script, letters))
    words = "".join(_missing(script, letters) if script else letters for script, letters in parts)
    return " ".join(words.split())


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", _VARIATIONS.sub("", text))


def _printable(text: str) -> Iterator[str]:
    marks = 0
    for k, c in enumerate(text):
        kind = unicodedata.category(c)
        marks = marks + 1 if kind in ("Mn", "Me") else 0
        if c in _JOINERS:
            # Between letters of scripts that join they spell: Sinhala and Persian cannot be written without.
            if all(_joins(text[other : other + 1]) for other in (k - 1, k + 1) if other >= 0) and k:
                yield c
        elif kind in ("Cc", "Cf", "Cs") or kind[0] == "Z":
            yield " "
        elif marks <= _MOST_MARKS:
            yield c


def _drawable(kept: Iterable[str]) -> Iterator[str]:
    """Put a space before a sign whose font has not the letter below it: one font draws both."""
    below: list[str] = []
    for c in kept:
        if unicodedata.category(c)[0] != "M":
            below = below if c in _JOINERS else []
        elif _has_glyph(c) and not all(ord(b) in _letters()[_home(c)] for b in below):
            yield " "
            below = []
        if c not in _JOINERS and _has_glyph(c):
            below.append(c)
        yield c


def _home(c: str) -> str:
    if ARABIC_LETTERS.match(c) and ord(c) in _letters()[ARABIC]:
        return ARABIC
    return next(family for family, letters in _letters().items() if ord(c) in letters)


def _joins(c: str) -> bool:
    return c > _FIRST_BEYOND_EUROPE and unicodedata.category(c)[0] in "LM"


def _has_glyph(c: str) -> bool:
    return c.isspace() or any(ord(c) in letters for letters in _letters().values())


def _script(c: str) -> str:
    if unicodedata.category(c) == "Co":
        return "private-use"
    name = scripts.script(c)
    return (
        "unknown" if name in ("Zyyy", "Zinh", "Zzzz") else str(scripts.script_name(name, "unknown")).replace("_", " ")
    )


def _missing(script: str, letters: str) -> str:
    count = sum(not c.isspace() and unicodedata.category(c)[0] != "M" for c in letters) or 1
    return f" [{plural(count, f'{script} letter')}: no font] "


def can_show(text: str) -> bool:
    """Whether every letter has a glyph."""
    return all(_has_glyph(c) for c in _printable(_composed(text)))


def person(header: Dataset, keyword: str = "PatientName") -> str:
    """Return a person's name (VR PN, PS3.5 6.2.1) in its scripts: «YAMADA Tarou, 山田 太郎».

    Of a representation without glyphs, its script is named.
    """
    groups = [" ".join(g.replace("^", " ").split()) for g in words(header, keyword, "\\=^").split("=")]
    return ", ".join(filter(None, dict.fromkeys(shown(group) for group in groups)))


def words(header: Dataset, keyword: str, delimiters: str = "\\") -> str:
    """Return a text element decoded, while its bytes in the header stay as they came (`source`)."""
    value = source.text_bytes(header, keyword)
    stated = header.get("SpecificCharacterSet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what cannot be decoded is shown as far as it can
        try:
            return decode_bytes(value, _encodings(stated), {ord(c) for c in delimiters}).strip()
        except (LookupError, UnicodeError, ValueError):
            return value.decode("ascii", "replace")


def _encodings(stated: str | MutableSequence[str] | None) -> list[str]:
    return list(convert_encodings(stated or "ISO_IR 6"))
