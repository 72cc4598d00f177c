"""Mutations of bytes and texts, and makers of PDUs, command sets and data sets that are nearly right.

Everything is drawn from the `random.Random` that is handed in: the same seed makes the same case.
"""

import struct
from collections.abc import Callable, Sequence
from random import Random

_INTERESTING = (
    0,
    1,
    2,
    4,
    6,
    7,
    8,
    127,
    128,
    255,
    256,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFE,
    0xFFFFFFFF,
)
_WIDTHS = (("B", 1), (">H", 2), ("<H", 2), (">L", 4), ("<L", 4))
#: No mutation makes a case longer than this.
LONGEST = 1 << 16
_VRS = b"AEASATCSDADSDTFDFLISLOLTOBODOFOLOVOWPNSHSLSQSSSTSVTMUCUIULUNURUSUTUVXX\0\0  "
_VERIFICATION, _CT, _FIND = "1.2.840.10008.1.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.2.2.1"
_COMMITMENT = "1.2.840.10008.1.20.1"
_IMPLICIT, _EXPLICIT, _BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
_DEFLATED, _JPEG = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.70"
SYNTAXES = (_IMPLICIT, _EXPLICIT, _BIG, _DEFLATED, _JPEG)
_VALUES = (
    b"", b"1", b"1.2.3", b"1.2.840.10008.5.1.4.1.1.2", b"CT", b"*", b"?*" * 9, b"../../x", b"/etc/passwd", b"A\nB",
    b"\0" * 9,
    b"-1", b"1e999", b"NaN", b"20261301", b"99999999", b"1\\2\\3\\4\\5\\6", b"\xff\xfe\xfd", b"=1+1", b"\x1b$B",
    b"9" * 70,
    b"ISO 2022 IR 87", b"\\ISO 2022 IR 149", b"ISO_IR 192", b"\\" * 40, b"1.2." * 500, b"PATIENT", b"STUDY",
    b"SERIES", b"IMAGE",
)  # fmt: skip


def mutated(rng: Random, data: bytes, *, most: int = 6) -> bytes:
    """One to `most` small changes anywhere, of which lengths are the favourite."""
    made = bytearray(data)
    for _ in range(rng.randint(1, most)):
        rng.choice(_CHANGES)(rng, made)
    return bytes(made[:LONGEST])


def _flip(rng: Random, made: bytearray) -> None:
    if made:
        made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)


def _number(rng: Random, made: bytearray) -> None:
    form, width = rng.choice(_WIDTHS)
    if len(made) >= width:
        value = rng.choice(_INTERESTING) & ((1 << 8 * width) - 1)
        struct.pack_into(form, made, rng.randrange(len(made) - width + 1), value)


def _nudge(rng: Random, made: bytearray) -> None:
    if made:
        at = rng.randrange(len(made))
        made[at] = (made[at] + rng.choice((-2, -1, 1, 2))) & 255


def _cut(rng: Random, made: bytearray) -> None:
    at = rng.randrange(len(made) + 1)
    del made[at : at + rng.randint(1, 32)]


def _truncate(rng: Random, made: bytearray) -> None:
    del made[rng.randrange(len(made) + 1) :]


def _insert(rng: Random, made: bytearray) -> None:
    at = rng.randrange(len(made) + 1)
    made[at:at] = rng.choice(_VALUES) if rng.random() < 0.5 else rng.randbytes(rng.randint(1, 16))


def _repeat(rng: Random, made: bytearray) -> None:
    at = rng.randrange(len(made) + 1)
    part = made[at : at + rng.randint(1, 64)]
    made[at:at] = part * rng.choice((1, 2, 8, 64))


def _swap(rng: Random, made: bytearray) -> None:
    a, b = (rng.randrange(len(made) + 1) for _ in range(2))
    part = made[a : a + rng.randint(1, 16)]
    made[b : b + len(part)] = part


_CHANGES: Sequence[Callable[[Random, bytearray], None]] = (
    _flip, _number, _number, _number, _nudge, _nudge, _cut, _truncate, _insert, _repeat, _swap,
)  # fmt: skip


def text(rng: Random, given: str, words: Sequence[str] = ()) -> str:
    """A text with some lines and words changed, and some letters."""
    lines = given.splitlines()
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(lines) + 1)
        match rng.randrange(7):
            case 0:
                del lines[at : at + rng.randint(1, 3)]
            case 1:
                lines[at:at] = lines[at : at + 3] * rng.choice((1, 2, 20))
            case 2 if words:
                lines.insert(at, rng.choice(words))
            case 3 | 4 if at < len(lines):
                parts = lines[at].split(" ")
                parts[rng.randrange(len(parts))] = rng.choice(
                    (*words, "", "0", "-1", "1e400", "nan", "true", '"x"', "[]", "{}", "'", '"')
                )
                lines[at] = " ".join(parts)
            case 5:
                rng.shuffle(lines)
            case _:
                return mutated(rng, "\n".join(lines).encode()).decode("utf-8", "replace")
    return "\n".join(lines)


def uid(rng: Random) -> str:
    """Mostly one that is known, sometimes one that is none."""
    if rng.random() < 0.85:
        return rng.choice((_VERIFICATION, _CT, _FIND, _COMMITMENT, f"1.2.3.{rng.randrange(9)}", *SYNTAXES))
    return rng.choice(_VALUES).decode("latin-1")


# Data sets (PS3.5 7)


def data_set(rng: Random, *, implicit: bool = False, big: bool = False, depth: int = 0, most: int = 12) -> bytes:
    """Elements with tags in order, most lengths right, sequences within sequences."""
    tags = sorted(_tag(rng) for _ in range(rng.randint(0, most)))
    return b"".join(element(rng, tag, implicit=implicit, big=big, depth=depth) for tag in tags)


def instance(rng: Random, *, implicit: bool = False, big: bool = False) -> bytes:
    """A data set with the UIDs that an image needs, among others."""
    known = {
        0x00080016: _CT, 0x00080018: f"1.2.3.{rng.randrange(99)}", 0x00080060: "CT", 0x00100020: "P1",
        0x0020000D: "1.2.3", 0x0020000E: "1.2.4", 0x00200032: "0\\0\\1", 0x00200037: "1\\0\\0\\0\\1\\0",
    }  # fmt: skip
    if rng.random() < 0.3:
        known[rng.choice(sorted(known))] = rng.choice(_VALUES).decode("latin-1")
    made = {
        tag: _element(tag, _vr_of(tag), value.encode("latin-1"), implicit=implicit, big=big)
        for tag, value in known.items()
    }
    for _ in range(rng.randrange(6)):
        tag = _tag(rng)
        made[tag] = element(rng, tag, implicit=implicit, big=big)
    return b"".join(made[tag] for tag in sorted(made))


def element(rng: Random, tag: int, *, implicit: bool = False, big: bool = False, depth: int = 0) -> bytes:
    """One element; of ten, one has a length or a VR that is not its own."""
    if depth < 4 and rng.random() < 0.12:
        inner = b"".join(
            _item(rng, data_set(rng, implicit=implicit, big=big, depth=depth + 1, most=4), big=big)
            for _ in range(rng.randrange(3))
        )
        return _sequence(rng, tag, inner, implicit=implicit, big=big)
    value = rng.choice(_VALUES) if rng.random() < 0.8 else rng.randbytes(rng.randrange(40))
    vr = _vr_of(tag) if rng.random() < 0.8 else bytes(_VRS[(at := 2 * rng.randrange(len(_VRS) // 2)) : at + 2])
    length = None if rng.random() < 0.95 else rng.choice(_INTERESTING)
    return _element(tag, vr, value, implicit=implicit, big=big, length=length)


def _element(
    tag: int, vr: bytes, value: bytes, *, implicit: bool = False, big: bool = False, length: int | None = None
) -> bytes:
    value += b" " * (len(value) % 2)
    length = len(value) if length is None else length
    order = ">" if big else "<"
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if implicit:
        return head + struct.pack(f"{order}L", length) + value
    if vr in (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"):
        return head + vr + struct.pack(f"{order}HL", 0, length) + value
    return head + vr + struct.pack(f"{order}H", length & 0xFFFF) + value


def _sequence(rng: Random, tag: int, inner: bytes, *, implicit: bool, big: bool) -> bytes:
    order = ">" if big else "<"
    open_ended = rng.random() < 0.5
    length = 0xFFFFFFFF if open_ended else len(inner)
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF) + (b"" if implicit else b"SQ\0\0")
    end = struct.pack(f"{order}HHL", 0xFFFE, 0xE0DD, 0) if open_ended and rng.random() < 0.9 else b""
    return head + struct.pack(f"{order}L", length) + inner + end


def _item(rng: Random, inner: bytes, *, big: bool) -> bytes:
    order = ">" if big else "<"
    open_ended = rng.random() < 0.4
    length = 0xFFFFFFFF if open_ended else len(inner) if rng.random() < 0.95 else rng.choice(_INTERESTING)
    end = struct.pack(f"{order}HHL", 0xFFFE, 0xE00D, 0) if open_ended else b""
    return struct.pack(f"{order}HHL", 0xFFFE, 0xE000, length) + inner + end


_TAGS = {
    0x00080005: b"CS", 0x00080008: b"CS", 0x00080016: b"UI", 0x00080018: b"UI", 0x00080020: b"DA", 0x00080030: b"TM",
    0x00080050: b"SH", 0x00080052: b"CS", 0x00080060: b"CS", 0x00080061: b"CS", 0x00080070: b"LO", 0x00081030: b"LO",
    0x0008103E: b"LO", 0x00100010: b"PN", 0x00100020: b"LO", 0x00100021: b"LO", 0x00100030: b"DA", 0x00101010: b"AS",
    0x00180015: b"CS", 0x00180050: b"DS", 0x00181210: b"SH", 0x0020000D: b"UI", 0x0020000E: b"UI", 0x00200013: b"IS",
    0x00200032: b"DS", 0x00200037: b"DS", 0x00201206: b"IS", 0x00280002: b"US", 0x00280004: b"CS", 0x00280008: b"IS",
    0x00280010: b"US", 0x00280011: b"US", 0x00280030: b"DS", 0x00280100: b"US", 0x00280101: b"US", 0x00280103: b"US",
    0x00281052: b"DS", 0x00281053: b"DS", 0x00091010: b"UN", 0x00081115: b"SQ", 0x7FE00010: b"OW",
}  # fmt: skip
_KNOWN_TAGS = tuple(_TAGS)


def _tag(rng: Random) -> int:
    return rng.choice(_KNOWN_TAGS) if rng.random() < 0.9 else rng.getrandbits(32)


def _vr_of(tag: int) -> bytes:
    return _TAGS.get(tag, b"LO")


# Command sets and PDUs (PS3.7 6.3, PS3.8 9.3)


def command(rng: Random, *, field: int | None = None, has_data: bool | None = None) -> bytes:
    """A command set in implicit little endian, with its group length mostly right."""
    field = (
        rng.choice((0x0001, 0x0001, 0x0001, 0x0030, 0x0020, 0x0021, 0x0010, 0x0130, 0x0FFF, rng.getrandbits(16)))
        if field is None
        else field
    )
    has_data = rng.random() < 0.7 if has_data is None else has_data
    elements = {
        0x0002: uid(rng).encode("latin-1"), 0x0100: struct.pack("<H", field),
        0x0110: struct.pack("<H", rng.getrandbits(16)),
        0x0700: struct.pack("<H", rng.choice((0, 1, 2, 9))), 0x0800: struct.pack("<H", 0x0001 if has_data else 0x0101),
        0x1000: f"1.2.3.{rng.randrange(99)}".encode(),
    }  # fmt: skip
    for _ in range(rng.randrange(3)):
        tag = rng.choice((*elements, 0x0600, 0x0900, 0x0902, 0x1008, 0x1030, rng.getrandbits(16)))
        if rng.random() < 0.4:
            elements.pop(tag, None)
        else:
            elements[tag] = rng.choice(_VALUES)
    body = b"".join(_element(tag, b"", elements[tag], implicit=True) for tag in sorted(elements))
    length = len(body) if rng.random() < 0.95 else rng.choice(_INTERESTING)
    return _element(0x0000, b"", struct.pack("<L", length), implicit=True) + body


def p_data(rng: Random, value: bytes, *, is_command: bool, context: int, longest: int = 4096) -> bytes:
    """P-DATA-TF PDUs that bring a command or a data set, cut anywhere into fragments."""
    pdus, at = [], 0
    while True:
        size = rng.choice((0, 1, 2, 7, 64, longest, longest)) if rng.random() < 0.3 else longest
        part = value[at : at + size]
        at += len(part)
        last = at >= len(value)
        control = (1 if is_command else 0) | (2 if last and rng.random() < 0.97 else 0)
        item = (
            struct.pack(">LBB", len(part) + 2 if rng.random() < 0.99 else rng.choice(_INTERESTING), context, control)
            + part
        )
        pdus.append(pdu(rng, 0x04, item))
        if last or len(pdus) > 40:
            return b"".join(pdus)


def pdu(rng: Random, kind: int, body: bytes) -> bytes:
    """A PDU with its length, which is sometimes not its own."""
    length = len(body) if rng.random() < 0.98 else rng.choice(_INTERESTING)
    return struct.pack(">BBL", kind, 0, length) + body


def associate_rq(rng: Random, *, honest: bool = False) -> bytes:
    """An A-ASSOCIATE-RQ; an honest one is accepted by a node called DICOMNODE."""
    odd = (lambda: False) if honest else (lambda: rng.random() < 0.06)

    def item(kind: int, body: bytes) -> bytes:
        length = rng.choice(_INTERESTING) & 0xFFFF if odd() else len(body)
        return struct.pack(">BBH", rng.getrandbits(8) if odd() else kind, 0, length & 0xFFFF) + body

    contexts = [(1, _CT, (_IMPLICIT, _EXPLICIT)), (3, _VERIFICATION, (_IMPLICIT,)), (5, _COMMITMENT, (_EXPLICIT,))]
    if not honest:
        contexts += [
            (rng.randrange(256), uid(rng), [uid(rng) for _ in range(rng.randrange(4))]) for _ in range(rng.randrange(5))
        ]
    offered = b"".join(
        item(
            0x20,
            bytes((number, 0, 0, 0)) + item(0x30, _uid(abstract)) + b"".join(item(0x40, _uid(s)) for s in syntaxes),
        )
        for number, abstract, syntaxes in contexts
    )
    user = item(0x51, struct.pack(">L", 16384 if honest else rng.choice((0, 1, 7, 16384, *_INTERESTING))))
    user += item(0x52, b"1.2.3.4") + item(0x55, b"FUZZ" if honest else rng.choice((b"FUZZ", b"", b"x" * 40, b"\xff")))
    if not honest:
        for _ in range(rng.randrange(4)):
            kind = rng.choice((0x53, 0x54, 0x56, 0x57, 0x58, 0x59, rng.getrandbits(8)))
            user += item(kind, _user_item(rng, kind))
    called = b"DICOMNODE" if honest or rng.random() < 0.9 else rng.choice(_VALUES)
    calling = b"FUZZ" if honest or rng.random() < 0.9 else rng.choice(_VALUES)
    version = 1 if honest or rng.random() < 0.95 else rng.getrandbits(16)
    head = struct.pack(">HH", version, 0) + called.ljust(16)[:16] + calling.ljust(16)[:16] + bytes(32)
    body = head + item(0x10, b"1.2.840.10008.3.1.1.1") + offered + item(0x50, user)
    return struct.pack(">BBL", 1, 0, len(body)) + body if honest else pdu(rng, 0x01, body)


def _user_item(rng: Random, kind: int) -> bytes:
    name = _uid(uid(rng))
    match kind:
        case 0x53:
            return struct.pack(">HH", rng.getrandbits(16), rng.getrandbits(16))
        case 0x54:
            return struct.pack(">H", len(name)) + name + bytes((rng.getrandbits(1), rng.getrandbits(2)))
        case 0x56:
            return struct.pack(">H", len(name)) + name + rng.randbytes(rng.randrange(8))
        case 0x57:
            return (
                struct.pack(">H", len(name))
                + name
                + struct.pack(">H", len(name))
                + name
                + struct.pack(">H", rng.randrange(4))
            )
        case 0x58:
            return (
                struct.pack(">BBH", rng.randrange(7), rng.getrandbits(1), 4) + b"user" + struct.pack(">H", 4) + b"word"
            )
    return rng.randbytes(rng.randrange(24))


def _uid(value: str) -> bytes:
    return value.encode("latin-1")


def conversation(rng: Random, *, refused: float = 0.25) -> bytes:
    """All that a peer sends on one connection: request, some messages, an end; all of it nearly right."""
    if rng.random() < 0.03:
        return rng.randbytes(rng.randrange(64))
    parts = [associate_rq(rng, honest=rng.random() > refused)]
    for _ in range(rng.randrange(5)):
        kind = rng.random()
        context = rng.choice((1, 1, 1, 3, 5)) if rng.random() < 0.95 else rng.getrandbits(8)
        if kind < 0.5:
            asked = _element(0x0000, b"", b"\0\0\0\0", implicit=True) if rng.random() < 0.02 else _store(rng)
            parts.append(p_data(rng, asked, is_command=True, context=context))
            parts.append(p_data(rng, instance(rng, implicit=rng.random() < 0.5), is_command=False, context=context))
        elif kind < 0.9:
            parts.append(p_data(rng, command(rng), is_command=True, context=context))
            if rng.random() < 0.5:
                parts.append(p_data(rng, data_set(rng, implicit=True), is_command=False, context=context))
        else:
            parts.append(
                pdu(
                    rng,
                    rng.choice((0x01, 0x02, 0x03, 0x05, 0x06, 0x07, rng.getrandbits(8))),
                    rng.randbytes(rng.choice((0, 4, 4, 9))),
                )
            )
    if rng.random() < 0.7:
        parts.append(struct.pack(">BBL", 0x05, 0, 4) + bytes(4))
    whole = b"".join(parts)
    return mutated(rng, whole, most=3) if rng.random() < 0.25 else whole


def _store(rng: Random) -> bytes:
    return command(rng, field=0x0001, has_data=True)
