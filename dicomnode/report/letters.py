"""Which letters pages and PDF can show: names of patients come in every script."""

import unicodedata
import warnings
from collections.abc import MutableSequence
from functools import cache
from importlib import resources
from pathlib import Path

import noto_cjk_sans_jp_regular
from fontTools.ttLib import TTFont
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.dataset import Dataset

from dicomnode.report import source
from dicomnode.report.wording import plain


def font_folders() -> list[str]:
    """Return the folders of the fonts: DejaVu Sans (Latin, Greek, Cyrillic, Arabic, Hebrew), Noto Sans CJK."""
    return [str(_dejavu()), str(resources.files(noto_cjk_sans_jp_regular))]


def cjk_font() -> str:
    """Return the path of Noto Sans CJK: Japanese, Chinese, Korean."""
    return str(resources.files(noto_cjk_sans_jp_regular) / noto_cjk_sans_jp_regular.FONT_FILE)


def _dejavu() -> Path:
    import matplotlib  # noqa: PLC0415  (half a second that no start needs)

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


@cache
def _known() -> frozenset[int]:
    found: set[int] = set()
    for path in (str(_dejavu() / "DejaVuSans.ttf"), cjk_font()):
        with TTFont(path, lazy=True) as font:
            found.update(font.getBestCmap() or {})
    return frozenset(found)


def shown(text: str) -> str:
    """Return what can be shown of a text: without signs that control direction or layout, unknown letters in ASCII."""
    kept = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in unicodedata.normalize("NFC", text))
    words = "".join(c if ord(c) in _known() else plain(c) for c in kept)
    return " ".join(words.split())


def can_show(text: str) -> bool:
    """Whether every letter has a glyph."""
    return all(ord(c) in _known() or unicodedata.category(c)[0] == "C" for c in unicodedata.normalize("NFC", text))


def person(header: Dataset, keyword: str = "PatientName") -> str:
    """Return a person's name (VR PN, PS3.5 6.2.1) in its scripts: «YAMADA Tarou, 山田 太郎».

    A representation that has letters without glyph is left out if another one can be shown.
    """
    groups = [" ".join(g.replace("^", " ").split()) for g in words(header, keyword, "\\=^").split("=")]
    groups = list(dict.fromkeys(group for group in groups if group))
    readable = [group for group in groups if can_show(group)]
    return ", ".join(shown(group) for group in readable or groups[:1])


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
