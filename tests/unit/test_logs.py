"""Patient data stays out of the logs."""

import asyncio
import gc
import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from dicomnode import logs
from dicomnode.errors import PeerError
from dicomnode.logs import kept
from dicomnode.network import association
from tests.helpers.ports import free_port


@pytest.fixture(autouse=True)
def _restore() -> object:
    root = logging.getLogger()
    engine = logging.getLogger("dbos")
    before = (root.handlers[:], root.level, engine.handlers[:], engine.filters[:], engine.propagate)
    hooks = (sys.excepthook, threading.excepthook, sys.unraisablehook)
    yield
    root.handlers[:], root.level, engine.handlers[:], engine.filters[:], engine.propagate = before
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(False)


def test_the_text_of_an_unexpected_error_shows_at_debug_level_only(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise ValueError(f"{'^'.join(('Doe', 'Jane'))} is no number")

    for level, shown in (("info", False), ("debug", True)):
        logs.configure(level, "worker-0")
        try:
            fail()
        except ValueError as e:
            logs.log_unexpected(logging.getLogger("dicomnode.x"), e, "study %s failed", "1.2.3")
        text = capsys.readouterr().err
        assert "study 1.2.3 failed: ValueError" in text
        assert "in fail" in text
        assert ("Doe^Jane" in text) is shown


def test_a_peer_that_is_away_is_told_by_us_alone(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "worker-0")
    with pytest.raises(PeerError, match="no connection"):
        association.echo(association.Peer("archive", "PEER", "127.0.0.1", free_port()))
    assert capsys.readouterr().err == ""


def test_who_sends_no_requests_writes_no_log(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "console")
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    logging.getLogger("uvicorn.error").error("it ended")
    told = capsys.readouterr().err
    assert "Invalid HTTP" not in told and "it ended" in told


def test_warnings_of_libraries_are_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "worker-0")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("Invalid value for VR PN: 'Doe^Jane'", UserWarning, stacklevel=1)
    logging.getLogger("pydicom").warning("Invalid value for VR PN: 'Doe^Jane'")
    logging.getLogger("dicomnode").info("ready")
    text = capsys.readouterr().err
    assert "Doe" not in text
    assert "Z INFO    worker-0 dicomnode: ready" in text


def test_exceptions_that_libraries_log_come_without_their_text(capsys: pytest.CaptureFixture[str]) -> None:
    def log_one(level: str) -> str:
        logs.configure(level, "worker-0")
        try:
            raise ValueError(f"{'^'.join(('Doe', 'Jane'))} is no number")
        except ValueError:
            logging.getLogger("dbos").error("Exception encountered in background workflow:", exc_info=True)
        return capsys.readouterr().err

    quiet = log_one("info")
    assert "ERROR   worker-0 dbos: Exception encountered" in quiet
    assert "in log_one" in quiet
    assert "ValueError" in quiet
    assert "Doe^Jane" not in quiet
    assert "Doe^Jane" in log_one("debug")


def test_a_cancelled_workflow_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    from dbos._error import DBOSAwaitedWorkflowCancelledError

    logs.configure("info", "worker-0")
    for error in (DBOSAwaitedWorkflowCancelledError("study/1.2/1/1"), ValueError("x")):
        logging.getLogger("dbos").error("Exception encountered in background workflow:", exc_info=error)
    text = capsys.readouterr().err
    assert "Cancelled" not in text
    assert text.count("Exception encountered") == 1


NAME = "Doe^Jane"


def test_nobody_forges_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "receiver")
    forged = (
        "1.2\n2026-01-01T00:00:00.000Z INFO    receiver dicomnode: all is well\x1b[2J\x9b1m\u2028\u202e\r\udcff\x7f"
    )
    logging.getLogger("dicomnode.x").warning("rejected %s", forged)
    text = capsys.readouterr().err
    assert len(text.splitlines()) == 1
    assert text[:-1].isprintable()
    assert r"\n2026" in text
    assert r"\x1b[2J" in text


def test_a_long_line_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "receiver")
    logging.getLogger("dicomnode.x").warning("rejected %s", "9" * 70_000)
    assert len(capsys.readouterr().err) < logs.LONGEST + 200


def test_what_is_no_uid_is_not_repeated() -> None:
    assert logs.uid("1.2.840.10008.1.1") == "1.2.840.10008.1.1"
    for bad in (NAME, "1.2.3 ", "1..2", "1.2\n3", "1" * 65, ""):
        assert logs.uid(bad) == f"(not a UID: {len(bad)} characters)"


def _log_as_a_library() -> None:
    library = logging.getLogger("sqlalchemy.pool")
    library.error("Exception during reset of %s or similar", NAME)
    library.error(f"cannot take {NAME} from the pool")
    library.error(ValueError(NAME))
    library.error(NAME + " is unknown")
    library.error("bad %s %d", *[NAME])  # arguments that do not fit


def test_a_library_s_values_are_left_out_and_its_own_words_told(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "worker-0")
    _log_as_a_library()
    text = capsys.readouterr().err
    assert "Doe" not in text
    assert "Exception during reset of … or similar" in text
    assert "cannot take … from the pool" in text
    assert len(text.splitlines()) == 5


def test_a_line_that_cannot_be_made_shows_no_values(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "worker-0")
    logging.getLogger("dicomnode.x").error("bad %s %d", *[NAME])
    text = capsys.readouterr().err
    assert "could not be written: TypeError" in text
    assert "Doe" not in text


def test_what_caused_an_exception_is_told_by_its_type(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "worker-0")
    try:
        try:
            raise KeyError(NAME)
        except KeyError as error:
            raise ValueError(NAME) from error
    except ValueError:
        logging.getLogger("dicomnode.x").exception("failed")
    text = capsys.readouterr().err
    assert "ValueError" in text
    assert "KeyError from" in text
    assert "Doe" not in text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_last_words_of_threads_finalisers_and_loops_are_types(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "receiver")

    def die() -> None:
        raise ValueError(NAME)

    class Bad:
        def __del__(self) -> None:
            raise LookupError(NAME)

    thread = threading.Thread(target=die, name="association")
    thread.start()
    thread.join()
    bad = Bad()
    del bad
    gc.collect()

    async def forget() -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(die)
        loop.call_exception_handler({"message": f"lost {NAME}", "exception": OSError(NAME)})
        await asyncio.sleep(0)

    asyncio.run(forget())
    text = capsys.readouterr().err
    assert "thread association died" in text
    for kind in ("ValueError", "LookupError", "OSError"):
        assert kind in text
    assert "Doe" not in text


def test_an_unexpected_end_shows_no_text() -> None:
    program = "from dicomnode import logs; logs.configure('info', 'x'); raise ValueError('^'.join(('Doe', 'Jane')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ended unexpectedly" in done.stderr
    assert "ValueError" in done.stderr
    assert "Doe^Jane" not in done.stderr


def test_the_same_trouble_is_told_once_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    handler = logs._OneStream(logs._Formatter("serve", quiet=True), clock=lambda: now[0])
    log = logging.Logger("dicomnode.clock")
    log.addHandler(handler)
    for second in range(200):
        now[0] = second / 2
        for tick in ("settle", "reconcile"):
            log.warning("%s failed, will retry: %s", tick, "the database failed")
        log.info("association %d", second)
    handler.flush_left_out()
    text = capsys.readouterr().err
    assert text.count("association") == 200
    told = [line for line in text.splitlines() if "settle failed" in line]
    assert len(told) == 3  # at 0 s; at 60 s and at the end what was left out
    counts = [int(line.rpartition("(")[2].split()[0]) for line in told if "left out" in line]
    assert sum(counts) + 1 == 200


def test_trouble_that_lasts_is_told_less_and_less_often(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    handler = logs._OneStream(logs._Formatter("serve", quiet=True), clock=lambda: now[0])
    log = logging.Logger("dicomnode.clock")
    log.addHandler(handler)
    for second in range(8 * 3600):
        now[0] = float(second)
        log.warning("the database failed")
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 13  # at 0 s, after 1, 3, 7, 15, 31 and 63 minutes, and then once an hour
    # Over for a while, it is news.
    now[0] += logs.QUIET_S
    log.warning("the database failed")
    last, news = capsys.readouterr().err.splitlines()
    assert "more lines like this left out" in last
    assert news.endswith("the database failed")


def test_one_place_tells_of_so_many_different_troubles(capsys: pytest.CaptureFixture[str]) -> None:
    handler = logs._OneStream(logs._Formatter("receiver", quiet=True))
    log = logging.Logger("dicomnode.receiver")
    log.addHandler(handler)
    for number in range(5_000):
        log.warning("rejected AE%d", number)
    assert len(handler._told) <= logs.MOST_OF_ONE_PLACE + 1
    handler.flush_left_out()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == logs.MOST_OF_ONE_PLACE + 2
    assert "(4969 more lines like these left out)" in lines[-1]


def test_of_a_child_s_standard_error_only_our_lines_pass(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "serve")
    reader, writer = os.pipe()
    thread = logs.pass_on(os.fdopen(reader, "rb"), "worker-0")
    ours = b"2026-01-01T00:00:00.000Z ERROR   worker-0 dicomnode: no\n"
    ours += b'  File "x.py", line 3, in f\n    f(y)\n  ValueError\n'
    with os.fdopen(writer, "wb") as child:
        child.write(ours)
        child.write(b"gdcm: bad value Doe^Jane\n    Doe^Jane\n  Doe^Jane\nValueError: Doe^Jane\n")
        child.write(b"dicomnode: the port is taken\nsecond line\n")
    thread.join(10)
    text = capfd.readouterr().err
    assert "Doe" not in text
    assert ours.decode() in text
    assert "dicomnode: the port is taken\nsecond line\n" in text
    assert "worker-0 printed a line of" in text


def test_a_stream_that_nobody_reads_stops_nobody() -> None:
    handler = logs._OneStream(logs._Formatter("serve", quiet=True))
    handler.setStream(io.StringIO())
    handler.stream.close()
    handler.emit(logging.makeLogRecord({"name": "dicomnode", "msg": "x", "levelno": logging.ERROR}))


def test_json_has_study_and_association_as_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "receiver", "json")
    log = logging.getLogger("dicomnode.test")
    with logs.about("1.2.3", 17):
        log.info("two\nlines of %s", "Ä")
    log.warning("study 1.2.4 settled as generation %d", 1)
    log.info("nothing known")
    with logs.about("Doe^Jane"):
        log.info("no UID")
    try:
        raise ValueError("^".join(("Doe", "Jane")))
    except ValueError as error:
        logs.log_unexpected(log, error, "study %s failed", "1.2.5")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in lines[:3]] == [
        "two\\nlines of Ä", "study 1.2.4 settled as generation 1", "nothing known",
    ]  # fmt: skip
    assert [(line.get("study"), line.get("association")) for line in lines[:3]] == [
        ("1.2.3", 17), ("1.2.4", None), (None, None),
    ]  # fmt: skip
    assert lines[0] | {"time": "", "message": ""} == {
        "time": "", "level": "INFO", "process": "receiver", "logger": "dicomnode.test", "message": "",
        "study": "1.2.3", "association": 17,
    }  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", lines[0]["time"])
    assert lines[4]["study"] == "1.2.5"
    assert "ValueError" in lines[4]["where"]
    assert "Doe^Jane" not in json.dumps(lines)


def test_text_names_what_a_line_is_about_once(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "receiver")
    log = logging.getLogger("dicomnode.test")
    with logs.about("1.2.3", 17):
        log.info("stored")
        log.info("study 1.2.3 is stored")
    assert [line.partition(": ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "stored [study 1.2.3, association 17]", "study 1.2.3 is stored [association 17]",
    ]  # fmt: skip


def test_what_is_told_again_is_about_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "receiver", "json")
    (handler,) = logging.getLogger().handlers
    log = logging.getLogger("dicomnode.test")
    for _ in range(3):
        with logs.about("1.2.3"):
            log.warning("full")
    assert isinstance(handler, logs._OneStream)
    handler.flush_left_out()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["message"], line["study"]) for line in lines] == [
        ("full", "1.2.3"), ("full (2 more lines like this left out)", "1.2.3"),
    ]  # fmt: skip


def test_a_decorated_function_keeps_its_name_and_its_study() -> None:
    @logs.about_study
    def work(study_uid: str, generation: int = 1) -> tuple[str, int, object]:
        return study_uid, generation, logs._about.get()

    assert work.__name__ == "work"
    assert work("1.2", generation=2) == ("1.2", 2, {"study": "1.2"})
    assert logs._about.get() == {}


def test_a_childs_json_lines_are_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    line = b'{"time": "2026-11-29T06:00:00.000Z", "level": "INFO", "message": "x"}\n'
    assert [harmless for _, harmless in logs._judged(io.BytesIO(line + b'{"time": "Doe^Jane"}\n'))] == [True, False]


def test_lines_about_a_study_are_kept_and_no_others(tmp_path: Path) -> None:
    """In a process of its own: `configure` sets hooks for good."""
    code = (
        "import logging, sys; from pathlib import Path; from dicomnode import logs; "
        "from dicomnode.logs.kept import KeptLines; "
        "logs.configure('debug', 'worker-0', 'text', KeptLines(Path(sys.argv[1]), 10_000)); "
        "log = logging.getLogger('dicomnode.x'); log.info('study 1.2.3 done\\n'); log.info('nothing'); "
        "log.debug('study 1.2.3 of Doe^Jane')\n"
        "with logs.about('1.2.3'): log.warning('slow')\n"
        "with logs.about('1.2.34'): log.warning('other')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)
    found = [(one["level"], one["message"]) for one in kept.of_study(tmp_path, "1.2.3", 10)]
    assert found == [("INFO", "study 1.2.3 done\\n"), ("WARNING", "slow")]
    assert len((tmp_path / kept.FILE).read_bytes().splitlines()) == 3


def test_kept_lines_have_a_limit_and_the_newest_stay(tmp_path: Path) -> None:
    lines = kept.KeptLines(tmp_path, 10_000)

    def write(process: int) -> None:
        for number in range(200):
            lines.keep(json.dumps({"study": "1.2", "message": f"{process}-{number}"}))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 11_000
    found = kept.of_study(tmp_path, "1.2", 1000)
    assert {f"{process}-199" for process in range(4)} & {one["message"] for one in found}
    assert len(found) > 100


def test_what_cannot_be_kept_is_no_end(tmp_path: Path) -> None:
    kept.KeptLines(tmp_path / "none", 10_000).keep("x")
    (tmp_path / kept.FILE).write_bytes(b'{"study": "1.2"\n\xff "study": "1.2"\n["study": "1.2"]\n{"study": "1.2"}\n')
    assert kept.of_study(tmp_path, "1.2", 10) == [{"study": "1.2"}]
