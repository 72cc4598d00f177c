r"""The one place where values of headers are read: each becomes a value of its VR (PS3.5 6.2), or none, with a doubt.

`settle` goes over a header as it was parsed. Numbers, dates, times and UIDs that a person would read all the same
(`3,98`, `1.0\1.0`, `2020-02-03`, `ct`) are written as the standard wants them; what nobody can read is taken out.
Valid values stay the bytes that they were. So whoever comes after, the reports too, finds a valid value or none, and
converting one never fails. Text is only ever looked at for words: it stays as it came, and `fits` says whether a valid
object may repeat it.
"""

import math
import re
import struct
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Final, Literal, TypeVar, cast

from pydicom import Dataset
from pydicom.charset import convert_encodings, decode_bytes, default_encoding, python_encoding
from pydicom.datadict import dictionary_has_tag, dictionary_VR, get_entry, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag
from pydicom.valuerep import TEXT_VR_DELIMS, PersonName, format_number_as_ds

from dicomnode.analysis.series.modules import PATIENT, STUDY
from dicomnode.logs import is_uid

Element = DataElement | RawDataElement
Kind = Literal["repaired", "unusable"]
T = TypeVar("T")
#: Python's names of character sets, as pydicom has them.
Encodings = tuple[str, ...]

#: What names the patient and the order: it goes back as it came, or the series is refused (`content_rules.identity`).
IDENTITY: Final = frozenset(
    (
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "AccessionNumber",
        "RequestedProcedureID",
        "PlacerOrderNumberImagingServiceRequest",
        "FillerOrderNumberImagingServiceRequest",
    )
)
#: What reports repeat: there, text and code strings must be valid too.
REPEATED: Final = IDENTITY.union(
    PATIENT,
    STUDY,
    (
        "SpecificCharacterSet",
        "TimezoneOffsetFromUTC",
        "RequestAttributesSequence",
        "RequestedProcedureDescription",
        "RequestedProcedureCodeSequence",
        "ReasonForTheRequestedProcedure",
        "ReasonForRequestedProcedureCodeSequence",
    ),
)
#: Sequences that somebody looks into. Others stay unparsed.
LOOKED_INTO: Final = REPEATED | {
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "DimensionIndexSequence",
    "DimensionOrganizationSequence",
    "ContrastBolusAgentSequence",
}
#: Code strings with values of their own (PS3.3 C.7.1.1, C.7.1.3, C.7.2.2, C.7.2.3).
ENUMERATED: Final = {
    "PatientSex": {"M", "F", "O"},
    "TypeOfPatientID": {"TEXT", "RFID", "BARCODE"},
    "QualityControlSubject": {"YES", "NO"},
    "PatientIdentityRemoved": {"YES", "NO"},
    "SmokingStatus": {"YES", "NO", "UNKNOWN"},
    "LongitudinalTemporalEventType": {"BASELINE", "ENROLLMENT"},
    "LossyImageCompression": {"00", "01"},
}
_PREGNANCY: Final = range(1, 5)
_SIZES: Final = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "SV": "q", "UV": "Q"}
_BINARY: Final = frozenset((*_SIZES, "AT", "OB", "OD", "OF", "OL", "OV", "OW"))
_LONGEST: Final = {"AE": 16, "LO": 64, "SH": 16, "ST": 1024, "LT": 10240}
_LINES: Final = frozenset(("ST", "LT", "UT"))
_TEXT: Final = frozenset(("AE", "LO", "SH", "ST", "LT", "UT", "UC", "PN", "UR"))
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_CODE: Final = re.compile(r"[A-Z0-9_ ]{0,16}")
_DATE: Final = re.compile(r"(\d{4})([-./]?)(\d\d)\2(\d\d)")
_TIME: Final = re.compile(r"([01]\d|2[0-3])(?::?([0-5]\d)(?::?([0-5]\d|60)(?:[.,](\d{1,6})\d*)?)?)?")
_AGE: Final = re.compile(r"(\d{1,3})([DWMY])")
#: Three letters in a row beyond ASCII: no language of Latin letters has them, so it is another alphabet.
_OTHER_ALPHABET: Final = re.compile(rb"[\x80-\xff]{3}")
_CHARACTER_SET: Final = re.compile(r"ISO[ _-](?:(2022)[ _-])?IR[ _-](\d+)")
#: What a character set is needed for.
_TEXTS: Final = tuple(k for k in REPEATED if (tag := tag_for_keyword(k)) is not None and dictionary_VR(tag) in _TEXT)
#: VRs of a fixed length or without spaces, and those that allow none before a value (PS3.5 6.2).
_UNPADDED: Final = frozenset(("AS", "DA", "UI"))
_ENDS_WITH_SPACES: Final = frozenset(("TM", "DT"))
_LARGEST_IS, _LONGEST_DS = 1 << 31, 16
#: No Specific Character Set: ASCII.
_OF_NONE: Final[Encodings] = (default_encoding,)
#: Multi-byte sets without escape sequences (PS3.3 C.12.1.1.2).
_STAND_ALONE: Final = frozenset(python_encoding[name] for name in ("ISO_IR 192", "GB18030", "GBK"))
_MOST_REMEMBERED, _LONGEST_REMEMBERED = 20_000, 128


@dataclass(frozen=True, order=True)
class Doubt:
    """An attribute whose value breaks its VR. «repaired»: it was read all the same; «unusable»: it counts as absent."""

    keyword: str
    kind: Kind


@dataclass(frozen=True)
class _Known:
    """What the dictionary says of an attribute; `most`: its largest number of values where that is fixed."""

    keyword: str
    vr: str
    most: int | None


#: Values that are in no doubt, each with the VR that it is read by.
_fine: dict[tuple[object, ...], str] = {}


def settle(dataset: Dataset) -> tuple[Doubt, ...]:
    """Make each value of a header valid for its VR, or take it out; in sequences that somebody looks into, too.

    Private elements stay as they are: nobody reads them. Returns the doubts, by keyword.
    """
    found: set[Doubt] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of what is judged here
        _settle_character_set(dataset, found)
        _settle(dataset, found, _OF_NONE)
    return tuple(sorted(found))


def fits(keyword: str, vr: str, value: bytes, encodings: Sequence[str]) -> bool:
    """Whether these bytes are a valid value of text: so many values, so long, without control characters.

    Args:
        keyword: of the attribute.
        vr: its VR; of one that is no text, True.
        value: as it stands in a file.
        encodings: Python's names of the character sets, as pydicom has them.
    """
    if vr == "CS":
        return all(_code(keyword, part) == part for part in value.decode("latin-1").strip(" \0").split("\\"))
    if vr not in _TEXT:
        return True
    words = _decoded(value, encodings)
    if words is None:
        return False
    return _fits(vr, words.strip(" \0"), None if (known := _known_keyword(keyword)) is None else known.most)


def _fits(vr: str, words: str, most: int | None) -> bool:
    parts = [words] if vr in _LINES or vr == "UR" else words.split("\\")
    if most is not None and len(parts) > most:
        return False
    allowed = "\t\n\f\r" if vr in _LINES else ""  # an escape sequence that stays is one of no character set here
    if any((c < " " and c not in allowed) or "\x7f" <= c < "\xa0" for c in words):
        return False
    if vr == "PN":
        groups = [group for part in parts for group in part.split("=")]
        return len(groups) <= 3 * len(parts) and all(len(g) <= 64 and g.count("^") <= 4 for g in groups)
    return vr not in _LONGEST or all(len(part) <= _LONGEST[vr] for part in parts)


def _settle_character_set(dataset: Dataset, found: set[Doubt]) -> None:
    """Read Specific Character Set first; name one where text beyond ASCII has none, and nobody could read it."""
    if "SpecificCharacterSet" in dataset:
        settled, kind = _character_set(cast(Element, dataset.get_item("SpecificCharacterSet")))
        del dataset["SpecificCharacterSet"]
        if settled is not None and settled.value:
            dataset[settled.tag] = settled
        if kind is not None:
            found.add(Doubt("SpecificCharacterSet", kind))
    if encodings_of(dataset, _OF_NONE) != _OF_NONE:
        return
    elements = [cast(Element, dataset.get_item(keyword)) for keyword in _TEXTS if keyword in dataset]
    texts = [
        e.value
        for e in elements
        if isinstance(e, RawDataElement) and isinstance(e.value, bytes) and e.VR not in _BINARY
    ]
    if all(text.isascii() for text in texts):
        return
    guess: str | None = None
    try:
        b"".join(texts).decode("utf-8")
        guess = "ISO_IR 192"
    except UnicodeDecodeError:
        if not any(map(_OTHER_ALPHABET.search, texts)):
            guess = "ISO_IR 100"
    if guess is None:
        found.add(Doubt("SpecificCharacterSet", "unusable"))
        return
    dataset.add_new("SpecificCharacterSet", "CS", guess)
    found.add(Doubt("SpecificCharacterSet", "repaired"))


def _settle(dataset: Dataset, found: set[Doubt], inherited: Encodings, *, in_item: bool = False) -> None:
    encodings = encodings_of(dataset, inherited)
    for element in cast("list[Element]", list(dataset.values())):  # as they were parsed: nothing is converted
        tag = element.tag
        known = _known(int(tag))
        if known is None:
            continue
        if known.vr == "SQ":
            if in_item or known.keyword in LOOKED_INTO or isinstance(element, DataElement):
                _settle_items(dataset, tag, known, element, found, encodings)
            continue
        settled, kind = _remembered(known, element, encodings)
        if kind is not None:
            found.add(Doubt(known.keyword, kind))
        if settled is None:
            del dataset[tag]
        elif settled is not element:
            dataset[tag] = settled


def _remembered(known: _Known, element: Element, encodings: Encodings) -> tuple[Element | None, Kind | None]:
    """As `_settled`; values that are in no doubt are looked at once, as most are the same in all images of a series."""
    value = cast(object, element.value)
    if not isinstance(element, RawDataElement) or not isinstance(value, bytes) or len(value) > _LONGEST_REMEMBERED:
        return _settled(known, element, encodings)
    key = (known, element.VR, element.value, element.is_implicit_VR, element.is_little_endian, encodings)
    vr = _fine.get(key)
    if vr is not None:
        return element if vr == element.VR else element._replace(VR=vr), None
    settled, kind = _settled(known, element, encodings)
    if kind is None and isinstance(settled, RawDataElement) and settled.value is element.value:
        if len(_fine) >= _MOST_REMEMBERED:
            _fine.clear()
        _fine[key] = settled.VR or known.vr
    return settled, kind


def _settle_items(
    dataset: Dataset, tag: BaseTag, known: _Known, element: Element, found: set[Doubt], inherited: Encodings
) -> None:
    in_items: set[Doubt] = set()
    try:
        if isinstance(element, RawDataElement):
            element = convert_raw_data_element(
                element._replace(VR="SQ"), encoding=dataset.original_character_set, ds=dataset
            )
        if not isinstance(element.value, Items):
            raise TypeError("no sequence")  # noqa: TRY301 - one way out of what is none
        items = list(element.value)
        for item in items:
            for inner in list(item.keys()):
                if not dictionary_has_tag(inner):  # a private one, or bytes that were never a sequence
                    del item[inner]
            _settle(item, in_items, inherited, in_item=True)
    except Exception:  # noqa: BLE001 - whatever a damaged sequence provokes in the parser
        found.add(Doubt(known.keyword, "unusable"))
        del dataset[tag]
    else:
        dataset[tag] = element
        if known.keyword in REPEATED and known.keyword != "RequestAttributesSequence":
            # The Patient ID among Other Patient IDs is not the patient's.
            in_items = {Doubt(known.keyword, doubt.kind) for doubt in in_items}
        found |= in_items


def _settled(known: _Known, element: Element, encodings: Encodings) -> tuple[Element | None, Kind | None]:
    """Return the element with a valid value, or None where it has none; and the doubt about it, if any."""
    if isinstance(element.value, Items):
        return None, "unusable"
    if element.value is None or element.value in (b"", ""):
        # Longer than what a header is read of, or empty: neither says anything.
        long = isinstance(element, RawDataElement) and element.value is None and element.length > 0
        return (None, "unusable") if long else (_as_of(element, known.vr), None)
    if known.vr in _SIZES or known.vr.startswith("US or SS"):
        return _binary(known, element)
    reader = _zone if known.keyword == "TimezoneOffsetFromUTC" else _READERS.get(known.vr)
    if reader is not None:
        return _exact(known, element, reader)
    if known.vr == "CS" or known.vr in _TEXT:
        return _words(known, element, encodings)
    return element, None


def _exact(known: _Known, element: Element, reader: Callable[[str], str | None]) -> tuple[Element | None, Kind | None]:
    """Values that are one thing only: numbers, dates, times, UIDs."""
    is_binary = isinstance(element, RawDataElement) and element.VR in _BINARY
    if isinstance(element, RawDataElement) and not is_binary:
        element = _unpadded(element, known.vr)
    if isinstance(element, RawDataElement) and is_binary:
        numbers = _unpacked(element, element.VR or "") if known.vr in ("DS", "IS") else None
        stated = None if numbers is None else [str(n) for n in numbers]
    else:
        stated = _strings(element)
    if stated is None:
        return None, "unusable"
    if not any(stated):
        return (None, "unusable") if len(stated) > 1 else (_as_of(element, known.vr), None)
    values = _without_repeats([reader(text) for text in stated], known.most)
    if values is None or any(value is None for value in values):
        return None, "unusable"
    if values == stated and not is_binary and not _is_padded_oddly(known.vr, element):
        return _as_of(element, known.vr), None
    made = DataElement(element.tag, known.vr, values[0] if len(values) == 1 else values)
    # Writers give more digits than a DS holds, and pad as they like: nothing is in doubt.
    if values == stated and known.vr in _UNPADDED:
        return made, None
    same = (
        known.vr in ("DS", "IS")
        and len(values) == len(stated)
        and all(map(_NUMBER.fullmatch, stated))
        and not is_binary
    )
    return made, None if same else "repaired"


def _is_padded_oddly(vr: str, element: Element) -> bool:
    """Whether there are NULs (but for one after a UID), or spaces where the VR has none (PS3.5 6.2)."""
    value = element.value if isinstance(element, RawDataElement) else None
    if not isinstance(value, bytes):
        return False
    if b"\0" in (value.removesuffix(b"\0") if vr == "UI" else value):
        return True
    # Several of them may end with a space, for an even length.
    parts = value.removesuffix(b" ").split(b"\\") if b"\\" in value else [value]
    if vr in _UNPADDED:
        return any(b" " in part for part in parts)
    return vr in _ENDS_WITH_SPACES and any(part.startswith(b" ") for part in parts)


def _binary(known: _Known, element: Element) -> tuple[Element | None, Kind | None]:
    if not isinstance(element, RawDataElement):
        many = element.value if isinstance(element.value, MultiValue | list | tuple) else [element.value]
        fine = all(isinstance(v, int | float) for v in many) and (known.most is None or len(many) <= known.most)
        return (element, None) if fine else (None, "unusable")
    ambiguous = known.vr not in _SIZES
    file_vr = element.VR or "UN"
    vr = (file_vr if file_vr in ("US", "SS") else "US") if ambiguous else known.vr
    numbers: list[int | float] | None
    if file_vr in (vr, "UN", "OB", "OW") or element.is_implicit_VR:
        numbers = _unpacked(element, vr)
    elif file_vr in _BINARY:
        numbers = _unpacked(element, file_vr)
    else:
        numbers = _whole_numbers(_strings(element))
    values = None if numbers is None else _without_repeats(numbers, known.most)
    odd = known.keyword == "PregnancyStatus" and values is not None and values[0] not in _PREGNANCY
    if values is None or odd or not all(_holds(vr, v) for v in values):
        return None, "unusable"
    if values == numbers and file_vr in (vr, "UN") and not ambiguous:
        return element._replace(VR=vr), None
    made = DataElement(element.tag, vr, values[0] if len(values) == 1 else values)
    return made, None if values == numbers and (ambiguous or element.is_implicit_VR) else "repaired"


def _words(known: _Known, element: Element, encodings: Encodings) -> tuple[Element | None, Kind | None]:
    """Text and code strings: kept, for the words in it, unless they are none."""
    if isinstance(element, RawDataElement) and element.VR in _BINARY:
        return None, "unusable"
    if known.keyword == "SpecificCharacterSet":  # pydicom has looked at it already
        return _character_set(element)
    if not isinstance(element, RawDataElement):
        return (
            (element, None) if isinstance(element.value, str | PersonName | MultiValue | list) else (None, "unusable")
        )
    value = cast(bytes, element.value)
    element = _unpadded(element, known.vr)
    value = cast(bytes, element.value)
    if known.vr == "CS":
        return _codes(known, element, value)
    if known.keyword not in IDENTITY and known.vr not in _LINES and not value.strip(b" \\"):
        return None, None  # values without a word in them are none
    unfit = known.keyword in REPEATED and not fits(known.keyword, known.vr, value, encodings)
    return _as_of(element, known.vr), "unusable" if unfit else None


def _codes(known: _Known, element: RawDataElement, value: bytes) -> tuple[Element | None, Kind | None]:
    """Code strings, in the capitals that the standard has; held to their VR where an object may repeat them."""
    parts = [part.strip(" \0") for part in value.decode("latin-1").split("\\")]
    read = _without_repeats([part.upper() for part in parts], known.most) or parts
    if known.keyword in REPEATED or known.keyword in ENUMERATED:
        valid = _code(known.keyword, read[0]) if len(read) == 1 else None
        if not valid:
            return None, "unusable" if valid is None else None  # blanks alone are no value
    if read == parts:
        return _as_of(element, "CS"), None
    joined = "\\".join(read).encode("latin-1", "replace")
    joined += b" " * (len(joined) % 2)
    return element._replace(VR="CS", value=joined, length=len(joined)), "repaired"


def _character_set(element: Element) -> tuple[Element | None, Kind | None]:
    if isinstance(element.value, Items):
        return None, "unusable"
    stated = _strings(element) if element.value else []
    read: list[str] = []
    for part in stated:
        if part in python_encoding:
            read.append(part)
        elif (found := _CHARACTER_SET.fullmatch(part.upper())) is not None:
            read.append(f"ISO 2022 IR {found[2]}" if found[1] else f"ISO_IR {found[2]}")
    if len(read) != len(stated) or not all(part in python_encoding for part in read):
        return None, "unusable"
    if read == stated or not any(read):
        return _as_of(element, "CS"), None
    return DataElement(element.tag, "CS", read[0] if len(read) == 1 else read), "repaired"


def _unpadded(element: RawDataElement, vr: str) -> RawDataElement:
    """Return the element padded as in PS3.5 6.2: NULs around a value are some writers' padding, no part of it."""
    value = element.value
    if not isinstance(value, bytes):
        return element
    padded, value = value, value.strip(b" \0")
    if padded.count(b"\0") == value.count(b"\0"):
        return element
    value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    return element._replace(value=value, length=len(value))


def _as_of(element: Element, vr: str) -> Element:
    """Return the element under the dictionary's VR, its bytes untouched."""
    if vr == element.VR:
        return element
    if isinstance(element, RawDataElement):
        return element._replace(VR=vr)
    return DataElement(element.tag, vr, element.value)


def _strings(element: Element) -> list[str]:
    if isinstance(element, RawDataElement):
        return [part.strip(" \0") for part in cast(bytes, element.value).decode("latin-1").split("\\")]
    many = element.value if isinstance(element.value, MultiValue | list | tuple) else [element.value]
    return [str(value).strip(" \0") for value in many]


def _without_repeats(values: list[T], most: int | None) -> list[T] | None:
    """Return the values where there are no more than `most`, or where they are the same ones over and over."""
    if most is None or len(values) <= most:
        return values
    times, rest = divmod(len(values), most)
    return values[:most] if rest == 0 and values == values[:most] * times else None


def _unpacked(element: RawDataElement, vr: str) -> list[int | float] | None:
    form = _SIZES.get(vr)
    value = element.value
    if form is None or not isinstance(value, bytes):
        return None
    count, rest = divmod(len(value), struct.calcsize(form))
    return list(struct.unpack(f"{'<' if element.is_little_endian else '>'}{count}{form}", value)) if not rest else None


def _whole_numbers(stated: Iterable[str]) -> list[int | float] | None:
    read = [_integer(text) for text in stated]
    return None if any(value is None for value in read) else [int(value) for value in read if value is not None]


def _holds(vr: str, value: float) -> bool:
    try:
        struct.pack(_SIZES[vr], value)
    except (struct.error, OverflowError):
        return False
    return math.isfinite(value)


# One reader for each VR: the value as the standard writes it; None where it is none.


def _decimal(text: str) -> str | None:
    if _NUMBER.fullmatch(text) and len(text) <= _LONGEST_DS and abs(float(text)) < math.inf:
        return text
    number = _float(text)
    return None if number is None else str(format_number_as_ds(number))


def _float(text: str) -> float | None:
    """Return the number that a text states, with a point or one comma; None for what is none, or not finite."""
    pointed = text.replace(",", ".") if text.count(",") == 1 and "." not in text else text
    if not _NUMBER.fullmatch(pointed):
        return None
    number = float(pointed)
    return number if math.isfinite(number) else None


def _integer(text: str) -> str | None:
    number = _float(text)
    if number is None or not number.is_integer() or not -_LARGEST_IS <= number < _LARGEST_IS:
        return None
    return text if re.fullmatch(r"[+-]?\d{1,11}", text) else str(int(number))


def _uid(text: str) -> str | None:
    return text if is_uid(text) else None


def _day(text: str) -> str | None:
    found = _DATE.fullmatch(text)
    if found is None:
        return None
    try:
        date(int(found[1]), int(found[3]), int(found[4]))
    except ValueError:
        return None
    return f"{found[1]}{found[3]}{found[4]}"


def _clock(text: str) -> str | None:
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    return "".join(part for part in found.groups()[:3] if part) + (f".{found[4]}" if found[4] else "")


def _date_time(text: str) -> str | None:
    clock, sign, zone = text, "", ""
    if (found := re.fullmatch(r"(.*)([+-])(\d{4})", text)) is not None and len(found[1]) >= 4:
        clock, sign, zone = found[1], found[2], found[3]
    if re.fullmatch(r"\d{4}|\d{4}(0[1-9]|1[0-2])", clock):
        return clock + sign + zone
    day = _day(clock[:8])
    rest = "" if len(clock) == 8 else _clock(clock[8:])
    return None if day is None or rest is None else day + rest + sign + zone


def _age(text: str) -> str | None:
    found = _AGE.fullmatch(text.upper())
    return f"{int(found[1]):03}{found[2]}" if found else None


def _zone(text: str) -> str | None:
    """Return Timezone Offset From UTC (PS3.3 C.12.1.1.8), &ZZXX."""
    found = re.fullmatch(r"([+-])(0\d|1[0-4]):?([0-5]\d)", text)
    return "".join(found.groups()) if found else None


def _code(keyword: str, text: str) -> str | None:
    if not _CODE.fullmatch(text):
        return None
    return text if not text or text in ENUMERATED.get(keyword, {text}) else None


_READERS: Final[dict[str, Callable[[str], str | None]]] = {
    "DS": _decimal,
    "IS": _integer,
    "UI": _uid,
    "DA": _day,
    "TM": _clock,
    "DT": _date_time,
    "AS": _age,
}


def encodings_of(dataset: Dataset, inherited: Encodings = (default_encoding,)) -> Encodings:
    """Return Python's names of the character sets of a data set.

    Args:
        dataset: a header, or an item of one.
        inherited: what an item takes from the data set that it stands in.
    """
    stated = dataset.get_item("SpecificCharacterSet") if "SpecificCharacterSet" in dataset else None
    if stated is None or not stated.value:
        return inherited
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return tuple(convert_encodings(_strings(stated)))
        except (LookupError, ValueError):
            return inherited


def _decoded(value: bytes, encodings: Sequence[str]) -> str | None:
    """Return a text; None where these bytes are none in the character sets that are stated."""
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    if encodings[0] == default_encoding and not value.partition(b"\x1b")[0].isascii():
        return None  # the default repertoire is ASCII (PS3.5 6.1.2.1)
    try:
        if len(encodings) == 1 and (b"\x1b" not in value or encodings[0] in _STAND_ALONE):
            return value.decode(encodings[0])
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what pydicom replaces it warns of
            return decode_bytes(value, list(encodings), TEXT_VR_DELIMS)
    except (LookupError, UnicodeError, ValueError, UserWarning):
        return None


@lru_cache(maxsize=8192)
def _known(tag: int) -> _Known | None:
    """Return what the dictionary says; None for private elements, group lengths, pixels, and what it does not know."""
    if tag >> 16 & 1 or tag & 0xFFFF == 0 or tag >> 16 == 0x7FE0:
        return None
    try:
        vr, vm, _, _, keyword = get_entry(tag)
    except KeyError:
        return None
    return _Known(keyword, vr, int(vm) if vm.isdigit() else None) if keyword else None


@lru_cache(maxsize=1024)
def _known_keyword(keyword: str) -> _Known | None:
    tag = tag_for_keyword(keyword)
    return None if tag is None else _known(tag)
