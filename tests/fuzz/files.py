"""Targets that come as files, or as answers of other people's servers."""

import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from random import Random

from dicomnode import config
from dicomnode.analysis.risk import load_bundle
from dicomnode.analysis.series.selection import group, read_headers, select, studies
from dicomnode.analysis.series.selection_rules import Rules
from dicomnode.analysis.volume.load import load
from dicomnode.config.notify import NotifyTable
from dicomnode.errors import BundleError, ConfigurationError, PeerError, PeerRejectedError, RefusedError, UsageError
from dicomnode.network import stow
from dicomnode.network.bounded_http import HttpAnswer
from dicomnode.operations.explain import explain
from dicomnode.outbound.notify import webhook
from dicomnode.outbound.notify.message import Message
from tests.fuzz import mutate
from tests.fuzz.target import Run, Target, plain
from tests.helpers import bundles
from tests.helpers.ct_files import ct_series, write
from tests.helpers.prerequisites import ROOT
from training.data import clinic_tables, csv_tables, follow_up

_UID = "1.2.3.4"
_STATUSES = (200, 200, 200, 202, 202, 409, 400, 500, 503, 301, 204)


# Configuration


@lru_cache
def _configuration() -> str:
    """The shipped file with its examples switched on."""
    lines = (ROOT / "ae_config.toml").read_text(encoding="utf-8").splitlines()
    return "\n".join(line.removeprefix("# ") if "=" in line or line.startswith("# [") else line for line in lines)


_WORDS = (
    "[node]", "[[node.callers]]", "[[destination]]", "[[notify]]", "[[route]]", "[[profile]]", "[analysis.selection]",
    "[x]",
    'kind = "stow"', 'kind = 7', 'port = 99999', 'host = ""', 'ae_title = "A\\u0000"', "callers = []", "when = [{}]",
    'secret_file = "\\u0000"', 'spool = "/"', "retention_days = inf", "= 1", "a.b.c = 1", 'url = "http://[::1"',
    "objects = []",
    'matches = "("', 'template = "$"', "timeout_s = nan", "trusted_keys = [1]", "\ufeff", "9" * 400,
    "[" * 200, "{" * 200,
)  # fmt: skip


def _config_case(rng: Random) -> bytes:
    return mutate.text(rng, _configuration(), _WORDS).encode("utf-8", "surrogateescape")


@contextmanager
def configuration() -> Iterator[Run]:
    with tempfile.TemporaryDirectory(prefix="dicomnode-fuzz-") as name:
        path = Path(name) / "ae_config.toml"

        def run(case: bytes) -> None:
            path.write_bytes(case)
            config.load(path)

        yield run


# Bundles


_BUNDLE = ROOT / "weights" / "demo-synthetic"
_CHANGED = (
    "model.toml",
    "golden.json",
    "radiomics-0.json",
    "radiomics-2.json",
    "golden.safetensors",
    "resnet18-0.safetensors",
)


def _bundle_case(rng: Random) -> bytes:
    number = rng.choice((0, 0, 0, 1, 1, 2, 3, 4, 5))
    name = _CHANGED[number]
    with (_BUNDLE / name).open("rb") as file:
        content = file.read(mutate.LONGEST)
    if name.endswith(".safetensors"):
        made = mutate.mutated(rng, content[:8192])
    elif rng.random() < 0.5:
        made = mutate.mutated(rng, content)
    else:
        words = ("NaN", "1e999", "-1", "[]", "{}", "null", '"../x"', "[[", "999999999999", '"kind"', "true")
        made = mutate.text(rng, content.decode(), words).encode("utf-8", "replace")
    return bytes((number, rng.random() < 0.8)) + made


@contextmanager
def bundle() -> Iterator[Run]:
    with tempfile.TemporaryDirectory(prefix="dicomnode-fuzz-") as name:
        folder = Path(name) / "bundle"
        shutil.copytree(_BUNDLE, folder)
        whole = {name: (folder / name).read_bytes() for name in ("model.toml", *_CHANGED)}

        def run(case: bytes) -> None:
            changed = _CHANGED[case[0] % len(_CHANGED)]
            try:
                (folder / changed).write_bytes(case[2:])
                if case[1]:
                    _seal(folder, changed)
                load_bundle.load(folder, allow_demo=True)
            finally:
                (folder / changed).write_bytes(whole[changed])
                (folder / "model.toml").write_bytes(whole["model.toml"])

        yield run


def _seal(folder: Path, changed: str) -> None:
    """As a forger would: digest and seal that fit, as far as the file can still be read."""
    if changed != "model.toml":
        bundles.list_again(folder, changed)
        return
    with suppress(UnicodeDecodeError, AssertionError):
        bundles.seal(folder)


# Cohort tables


_OUTCOMES = """patient,death_date,last_contact_date,transplant_date
p1,2020-01-02,,
p2,,2021-03-04,
"p 3",,2022-05-06,2019-01-01
"""
_COVARIATES = """patient,date,name,value,unit
p1,2020-01-02,fvc,81.5,%
p2,2021-03-04,dlco,44,%
"""
_CELLS = (
    "patient",
    "issuer",
    "x",
    "",
    ",",
    '"',
    '""',
    "=1+1",
    "0000-00-00",
    "9999-12-31",
    "1e999",
    "nan",
    "-1",
    "\0",
    "\ufeff",
    "é" * 50,
)


def _csv_case(rng: Random) -> bytes:
    is_outcomes = rng.random() < 0.5
    given = (_OUTCOMES if is_outcomes else _COVARIATES).encode()
    changed = mutate.mutated(rng, given, most=4)
    if rng.random() < 0.5:
        rows = given.decode().splitlines()
        cells = rows[at := rng.randrange(len(rows))].split(",")
        cells[rng.randrange(len(cells))] = rng.choice(_CELLS)
        rows[at] = ",".join(cells)
        changed = "\n".join(rows).encode()
    return bytes((is_outcomes,)) + changed


@contextmanager
def tables() -> Iterator[Run]:
    with tempfile.TemporaryDirectory(prefix="dicomnode-fuzz-") as name:
        path = Path(name) / "table.csv"

        def run(case: bytes) -> None:
            path.write_bytes(case[1:])
            if case[:1] == b"\1":
                follow_up.read_outcomes(path)
            else:
                csv_tables.read(path, clinic_tables.TABLES["covariates"], {"issuer": csv_tables.words})

        yield run


# The analysis's way in


_RULES = Rules(min_slices=3, min_coverage_mm=5)


@lru_cache
def _slices() -> tuple[bytes, ...]:
    """Six small axial images, the same in every process."""
    images = ct_series(StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.4", FrameOfReferenceUID="1.2.5")[:6]
    for number, image in enumerate(images):
        image.SOPInstanceUID = f"1.2.6.{number}"
    with tempfile.TemporaryDirectory() as name:
        return tuple(path.read_bytes() for path in write(images, Path(name)))


def _slice_case(rng: Random) -> bytes:
    base = _slices()[rng.randrange(6)]
    kind = rng.random()
    if kind < 0.75:
        return base[:132] + mutate.mutated(rng, base[132:], most=4)
    meta = base[: base.index(b"\x08\x00\x08\x00")]
    return meta + (
        mutate.instance(rng) + mutate.element(rng, 0x7FE00010)
        if kind < 0.9
        else base[len(meta) :] + mutate.data_set(rng)
    )


@contextmanager
def slices() -> Iterator[Run]:
    """One image of six is odd: headers, selection, explanation, loading."""
    with tempfile.TemporaryDirectory(prefix="dicomnode-fuzz-") as name:
        folder = Path(name)
        for number, content in enumerate(_slices()[:5]):
            (folder / f"{number}.dcm").write_bytes(content)

        def run(case: bytes) -> None:
            (folder / "odd.dcm").write_bytes(case)
            headers, unreadable = read_headers(sorted(folder.iterdir()))
            explain(folder, _RULES)
            for series in group(headers):
                with suppress(RefusedError):
                    load(series, limits=_RULES)
            for of_one in studies(group(headers)).values():
                select(of_one, unreadable, _RULES)

        yield run


# Other people's servers


def _stow_body(rng: Random) -> bytes:
    item = {"00081155": {"vr": "UI", "Value": [_UID]}, "00081197": {"vr": "US", "Value": [rng.choice((0, 43264, 272))]}}
    said = {rng.choice(("00081199", "00081198")): {"vr": "SQ", "Value": [item] * rng.randrange(3)}}
    value: object = rng.choice(
        (said, [said], [], None, 7, "x", {"00081198": 7}, {"00081198": {"Value": [1, None, []]}})
    )
    if rng.random() < 0.4:
        odd = rng.choice((None, 7, "x", [], {}, {"Value": None}, {"Value": [{}]}, {"Value": {}}, [[]], "A7", -1, 1e300))
        item[rng.choice(tuple(item))] = odd if rng.random() < 0.5 else {"Value": [odd]}  # type: ignore[assignment]
        value = said
    body = json.dumps(value).encode()
    return mutate.mutated(rng, body) if rng.random() < 0.4 else body


def _stow_case(rng: Random) -> bytes:
    return bytes((rng.randrange(len(_STATUSES)),)) + (b"[" * 5000 if rng.random() < 0.005 else _stow_body(rng))


def _stow(case: bytes) -> None:
    if case:
        answer = HttpAnswer(_STATUSES[case[0] % len(_STATUSES)], "", case[1:], "application/dicom+json")
        stow._judge(stow.StowServer("archive", "http://127.0.0.1"), answer, _UID)


def _http_case(rng: Random) -> bytes:
    body = _stow_body(rng)
    status = rng.choice((*_STATUSES, 100, 199, 999, 0))
    head = f"HTTP/1.1 {status} OK\r\nContent-Length: {len(body)}\r\nContent-Type: application/dicom+json\r\n"
    head += rng.choice(
        ("", "Location: http://[x\r\n", "Content-Encoding: gzip\r\n", "Transfer-Encoding: chunked\r\n", "X: \0\r\n")
    )
    whole = head.encode() + b"Connection: close\r\n\r\n" + body
    return mutate.mutated(rng, whole, most=3) if rng.random() < 0.7 else whole


class Answering:
    """A server that answers each connection with the same bytes, and closes it."""

    def __init__(self) -> None:
        self.answer = b""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self._listening.accept()
                with peer, suppress(OSError):
                    peer.settimeout(2)
                    peer.recv(1 << 16)
                    peer.sendall(self.answer)
                    peer.shutdown(socket.SHUT_WR)
                    while peer.recv(1 << 16):
                        pass

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


@contextmanager
def servers() -> Iterator[Run]:
    """STOW and a webhook, each asked over TCP."""
    with tempfile.TemporaryDirectory(prefix="dicomnode-fuzz-") as name:
        path, key = Path(name) / "object.dcm", Path(name) / "key"
        path.write_bytes(_slices()[0])
        key.write_text("secret")
        server = Answering()
        url = f"http://127.0.0.1:{server.port}"
        hook = NotifyTable(name="hook", kind="webhook", url=url, secret_file=key, timeout_s=2)
        try:

            def run(case: bytes) -> None:
                server.answer = case
                with suppress(PeerError, PeerRejectedError):
                    stow.send(stow.StowServer("archive", url, timeout_s=2), [path])
                webhook.send(hook, Message("key", "subject", "text", {"event": "held"}))

            yield run
        finally:
            server.close()


TARGETS = (
    Target("config", _config_case, configuration, (ConfigurationError,), share=0.4),
    Target("bundle", _bundle_case, bundle, (BundleError,), share=0.01),
    Target("csv", _csv_case, tables, (UsageError,), share=3),
    Target("slices", _slice_case, slices, share=0.2),
    Target("stow", _stow_case, plain(_stow), (PeerError, PeerRejectedError), share=5),
    Target("servers", _http_case, servers, (PeerError, PeerRejectedError), share=0.05),
)
