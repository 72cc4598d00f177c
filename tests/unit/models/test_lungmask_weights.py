"""Weights from a server that is slow, cut off, wrong or missing, and from a stick."""

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicomnode import cli, config, downloads
from dicomnode.analysis.lungs import lungmask
from dicomnode.errors import PeerError, PeerRejectedError, UsageError, WeightsError
from dicomnode.models import lungmask_weights, segmenters
from tests.helpers.file_server import Handler, Server, serving

CONTENT = bytes(range(256)) * 5000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
MINE = downloads.PublishedFile(
    "Mine", f"unet_mine-{DIGEST[:8]}.pth", "nothing", "http://127.0.0.1:9/", "use `dicomnode weights install`"
)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(MINE.file, CONTENT) as running:
        yield running


@pytest.fixture(autouse=True)
def mine_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lungmask_weights, "KNOWN", (*lungmask_weights.KNOWN, MINE))


def test_the_published_files() -> None:
    """lungmask's own list: the same addresses."""
    from lungmask.mask import MODEL_URLS

    assert {k.name: k.source + k.file for k in lungmask_weights.KNOWN if k is not MINE} == {
        name: url for name, (url, _) in MODEL_URLS.items()
    }
    assert [k.prefix for k in lungmask_weights.KNOWN[:3]] == ["d5d2fc3d", "3a07043d", "0de78a7e"]


def test_fetch_verify_list(tmp_path: Path, server: Server) -> None:
    seen: list[tuple[int, int | None]] = []
    done = downloads.fetch(MINE, tmp_path / "w", server.url, lambda have, total: seen.append((have, total)))
    assert done == downloads.Installed(tmp_path / "w" / MINE.file, DIGEST)
    assert done.path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert downloads.installed(tmp_path / "w") == {MINE.file: done}
    assert [v.ok for v in lungmask_weights.verify(tmp_path / "w")] == [True]
    assert sorted(p.name for p in (tmp_path / "w").iterdir()) == sorted([MINE.file, "installed.json"])


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_download_goes_on(tmp_path: Path, server: Server, ranges: bool) -> None:
    server.cut, server.ranges = 500_000, ranges
    with pytest.raises(PeerError, match="again to resume"):
        downloads.fetch(MINE, tmp_path, server.url)
    assert not (tmp_path / MINE.file).exists()
    assert downloads.installed(tmp_path) == {}
    assert downloads.fetch(MINE, tmp_path, server.url).path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=500000-"]


def test_what_is_here_and_whole_is_not_asked_for_again(tmp_path: Path, server: Server) -> None:
    first = downloads.fetch(MINE, tmp_path, server.url)
    assert downloads.fetch(MINE, tmp_path, server.url) == first
    assert server.asked == [None]
    first.path.write_bytes(b"damaged since")
    assert downloads.fetch(MINE, tmp_path, server.url).path.read_bytes() == CONTENT


def test_a_whole_part_needs_no_second_download(tmp_path: Path, server: Server) -> None:
    (tmp_path / f"{MINE.file}.part").write_bytes(CONTENT)
    assert downloads.fetch(MINE, tmp_path, server.url).sha256 == DIGEST


def test_a_wrong_digest_is_refused_and_nothing_is_kept(tmp_path: Path, server: Server) -> None:
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(WeightsError, match=f"begins with {DIGEST[:8]}"):
        downloads.fetch(MINE, tmp_path, server.url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [("/nowhere", PeerRejectedError, "404"), ("/files/broken?", PeerError, "503")],
)
def test_what_the_server_says(
    tmp_path: Path, server: Server, path: str, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "broken" in path:
        monkeypatch.setattr(Handler, "do_GET", lambda self: self.send_error(503))
    with pytest.raises(error, match=message):
        downloads.fetch(MINE, tmp_path, f"http://127.0.0.1:{server.server_port}{path}")


def _says(*lines: bytes, body: bytes = b"", times: int = 1) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.wfile.write(b"\r\n".join([*lines, b"", b""]))
        with contextlib.suppress(OSError):
            for _ in range(times):
                handler.wfile.write(body)
        handler.close_connection = True

    return answer


_OK = b"HTTP/1.0 200 OK"


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (_says(_OK, b"Content-Length: 99999999999"), PeerRejectedError, "wants to send 99999999999 bytes"),
        (_says(_OK, b"Content-Length: -5"), PeerRejectedError, "length that is none"),
        (_says(_OK, b"Content-Length: many"), PeerRejectedError, "length that is none"),
        (_says(_OK, b"Content-Length: " + b"9" * 5000), PeerRejectedError, "length that is none"),
        (_says(_OK, body=bytes(1 << 20), times=8), PeerRejectedError, "sent more than"),
        (_says(b"HTTP/1.0 206 Part", b"Content-Range: bytes 7-9/10", body=b"abc"), PeerRejectedError, "another part"),
        (_says(b"SSH-2.0-x"), PeerError, "resume"),
        (_says(b"HTTP/1.0 200 " + b"x" * 100_000), PeerError, "resume"),
        (_says(_OK, *[b"X-%d: y" % n for n in range(300)]), PeerError, "resume"),
        (_says(b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", body=b"zz\r\n"), PeerError, "resume"),
        (_says(b"HTTP/1.0 404 " + b"\x1b[31m" * 500), PeerRejectedError, r"404 \?\[31m"),
    ],
)
def test_answers_that_are_no_file(
    tmp_path: Path,
    server: Server,
    answer: Callable[[Handler], None],
    error: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Handler, "do_GET", answer)
    with pytest.raises(error, match=message) as told:
        downloads.fetch(replace(MINE, most_bytes=2 << 20), tmp_path, server.url)
    assert len(str(told.value)) < 500
    assert downloads.installed(tmp_path) == {}
    left = list(tmp_path.iterdir())
    assert left == [] or (error is PeerError and [p.stat().st_size for p in left] == [0])


@pytest.mark.parametrize("begin", [b"", _OK + b"\r\n", _OK + b"\r\n\r\n"])
def test_a_download_ends_however_slow_the_server(
    tmp_path: Path, server: Server, begin: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never silent for long, in the greeting, the headers or the body."""
    ended = threading.Event()

    def trickle(handler: Handler) -> None:
        handler.wfile.write(begin)
        for _ in range(600):
            if ended.wait(0.05):
                break
            handler.wfile.write(b"H")

    monkeypatch.setattr(Handler, "do_GET", trickle)
    monkeypatch.setattr(downloads, "TOTAL_S", 0.5)
    with pytest.raises(PeerError, match="longer than"):
        downloads.fetch(MINE, tmp_path, server.url)
    ended.set()
    assert downloads.installed(tmp_path) == {}


def test_parts_of_long_ago_are_swept(tmp_path: Path, server: Server) -> None:
    old, young = tmp_path / "old.pth.part", tmp_path / "young.pth.part"
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (1.0, 1.0))
    downloads.fetch(MINE, tmp_path, server.url)
    assert not old.exists()
    assert young.exists()


def test_nobody_listens(tmp_path: Path) -> None:
    with Server(MINE.file, CONTENT) as gone:
        url = gone.url
    with pytest.raises(PeerError, match="weights install"):
        downloads.fetch(MINE, tmp_path, url)


def test_a_mirror_is_a_web_address(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="https://"):
        downloads.fetch(MINE, tmp_path, "file:///etc")


def test_install_and_damage(tmp_path: Path) -> None:
    carried = tmp_path / "stick" / MINE.file
    carried.parent.mkdir()
    carried.write_bytes(CONTENT)
    folder = tmp_path / "weights"
    done = lungmask_weights.install(carried, folder)
    assert done.sha256 == DIGEST
    assert carried.exists()
    done.path.write_bytes(CONTENT + b"later")
    (verdict,) = lungmask_weights.verify(folder)
    assert not verdict.ok
    assert DIGEST in verdict.text
    done.path.unlink()
    assert [v.text for v in lungmask_weights.verify(folder)] == ["is missing: fetch or install it again"]
    carried.write_bytes(b"other")
    with pytest.raises(WeightsError, match=str(carried)):
        lungmask_weights.install(carried, folder)
    with pytest.raises(UsageError, match="R231"):
        lungmask_weights.install(tmp_path / "model.pth", folder)


def test_verify_looks_at_bundles(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.toml").write_text("")
    assert [(v.name, v.ok) for v in lungmask_weights.verify(tmp_path)] == [("broken", False)]


def test_the_commands(tmp_path: Path, server: Server) -> None:
    file = tmp_path / "ae_config.toml"
    file.write_text(f'[weights]\nmirror = "{server.url}"\n')

    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(cli.app, ["weights", *words, "--config", str(file)])
        return result.exit_code, result.output

    code, text = run("verify")
    assert (code, "nothing installed" in text) == (0, True)
    code, text = run("fetch", "mine")
    assert (code, DIGEST in text) == (0, True)
    code, text = run("list")
    assert (code, DIGEST in text, "unet_r231-d5d2fc3d.pth" in text) == (0, True, True)
    assert run("verify")[0] == 0
    assert run("install", str(tmp_path / "weights" / MINE.file))[0] == 0
    (tmp_path / "weights" / MINE.file).write_bytes(b"")
    code, text = run("verify")
    assert (code, "FAILED" in text) == (4, True)
    assert isinstance(
        CliRunner().invoke(cli.app, ["weights", "fetch", "x", "--config", str(file)]).exception, UsageError
    )


def test_the_configuration_may_name_what_is_installed(tmp_path: Path) -> None:
    settings = config.parse({"analysis": {"segmenter": "lungmask", "lungmask_weights": "Mine"}}, tmp_path / "c.toml")
    with pytest.raises(WeightsError, match="weights fetch R231"):
        segmenters.make(settings.analysis)
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "installed.json").write_text(json.dumps({MINE.file: "0" * 64}))
    with pytest.raises(WeightsError, match=str(folder / MINE.file)):
        segmenters.make(settings.analysis)


def test_the_lobes_have_weights_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, object]] = []
    monkeypatch.setattr(lungmask, "LungmaskSegmenter", lambda *_, **named: made.append(named))
    file = tmp_path / "lobes.pth"
    table = {
        "segmenter": "lungmask",
        "lungmask_weights": "Mine",
        "lungmask_sha256": DIGEST,
        "lungmask_lobe_weights": "lobes.pth",
        "lungmask_lobe_sha256": "1" * 64,
        "device": "cuda:1",
    }
    segmenters.make(config.parse({"analysis": table}, tmp_path / "c.toml").analysis)
    assert made[0]["device"] == "cuda:1"
    assert made[0]["lobe_weights"] == lungmask.WeightsFile(file, "1" * 64)
    segmenters.make(config.parse({"analysis": {**table, "lungmask_lobes": False}}, tmp_path / "c.toml").analysis)
    assert made[1]["lobe_weights"] is None
    unknown = config.parse({"analysis": {**table, "lungmask_lobe_sha256": None}}, tmp_path / "c.toml").analysis
    with pytest.raises(WeightsError, match="lobes.pth: no such weights; known: R231.* needs its digest"):
        segmenters.make(unknown)


def test_lobes_are_found_wherever_their_weights_are_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, object]] = []
    monkeypatch.setattr(lungmask, "LungmaskSegmenter", lambda *_, **named: made.append(named))
    table = {"segmenter": "lungmask", "lungmask_weights": "Mine", "lungmask_sha256": DIGEST}
    file = lungmask_weights.find("LTRCLobes").file
    (tmp_path / "weights").mkdir()
    for installed in ({}, {file: "2" * 64}):
        (tmp_path / "weights" / "installed.json").write_text(json.dumps(installed))
        for lobes in (True, False):
            given = {"analysis": {**table, "lungmask_lobes": lobes}}
            segmenters.make(config.parse(given, tmp_path / "c.toml").analysis)
    found = lungmask.WeightsFile(tmp_path / "weights" / file, "2" * 64)
    assert [one["lobe_weights"] for one in made] == [None, None, found, None]
