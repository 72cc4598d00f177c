"""Logging to standard error: one line an event, UTC. Patient data may show at debug level only.

What holds for every line, whoever wrote it and in whichever thread:

- Control characters are escaped and long lines cut: nobody forges a line by a UID, an AE title or an answer.
- Of an exception its type and its place are told, never its text: somebody else's may quote what it was given.
- Of a library's line its own words are told (the literals in its source), never the values that it put in between.
- A dead thread, a failed finaliser and an unexpected end go the same way (`configure` sets Python's three hooks).
- The same trouble is told once a minute, and while it lasts less and less often, with the number of lines left out.
- What it is about (`about`), a study or an association, is a field of its own in JSON, and stands behind a line of text
  that does not name it. Lines about a study are kept for the console too (`kept`), never those of debug level.
"""

import atexit
import functools
import json
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import CodeType, FrameType, MappingProxyType, TracebackType
from typing import IO, Any, Concatenate, Literal, ParamSpec, TypeVar

from dicomnode.logs.kept import KeptLines
from dicomnode.words.numerals import plural

log = logging.getLogger(__name__)

_Raised = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_NOTHING: Mapping[str, str | int] = MappingProxyType({})
_about: ContextVar[Mapping[str, str | int]] = ContextVar("about", default=_NOTHING)

#: Longer words are cut: characters, before escaping.
LONGEST = 2_000
#: The same trouble is told once in so many seconds, while it lasts in twice as many each time up to the longest ...
WINDOW_S = 60.0
LONGEST_WINDOW_S = 3600.0
#: ... after so long without it, it is news again ...
QUIET_S = 900.0
#: ... and one place in the code tells of so many different troubles in that time.
MOST_OF_ONE_PLACE = 30
_OURS = ("dicomnode", "training", "__main__")
# C0, DEL, C1, the separators that some viewers break lines at, what turns the direction of text, lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
#: The attribute of a record that holds the frames of an error.
_WHERE = "dicomnode_where"
_FIELDS = "dicomnode_about"
_NAMED_STUDY = re.compile(r"\bstudy ([0-9]+(?:\.[0-9]+)+)")
_PLACEHOLDER = re.compile(r"%(\(\w+\))?[-#0 +]*[\d*]*(\.[\d*]+)?[a-zA-Z]")
#: PS3.5 section 9.1, but leading zeros in a component are taken: many devices write them.
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_LONGEST_UID = 64
#: Longer AE titles are cut: characters.
_LONGEST_TITLE = 64


def escaped(text: str, longest: int = LONGEST) -> str:
    """Return text as a part of one line: control characters escaped, cut behind `longest` characters."""
    cut = text if len(text) <= longest else f"{text[:longest]}… ({plural(len(text), 'character')})"
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), cut)


def is_uid(text: str) -> bool:
    """Say whether this is a UID: digits and dots, of at most 64 characters (PS3.5 section 9.1)."""
    return len(text) <= _LONGEST_UID and _UID.fullmatch(text) is not None


def uid(text: str) -> str:
    """Return what a peer calls a UID as it may be logged: a name or an ID that stands in its place is not repeated."""
    return text if is_uid(text) else f"(not a UID: {plural(len(text), 'character')})"


def printable(title: str) -> str:
    """Return an AE title that a peer claims as a part of one line of ASCII: looks like no other title."""
    return escaped(title, _LONGEST_TITLE).encode("ascii", "backslashreplace").decode()


@contextmanager
def about(study: str = "", association: int | None = None) -> Iterator[None]:
    """Let every line that this thread logs meanwhile tell what it is about: a study's UID, an association's row."""
    found: dict[str, str | int] = {"study": uid(study)} if study else {}
    if association is not None:
        found["association"] = association
    token = _about.set({**_about.get(), **found})
    try:
        yield
    finally:
        _about.reset(token)


def about_study(do: Callable[Concatenate[str, _P], _R]) -> Callable[Concatenate[str, _P], _R]:
    """Decorate what is done for a study, whose UID is its first argument."""

    @functools.wraps(do)
    def doing(study_uid: str, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with about(study_uid):
            return do(study_uid, *args, **kwargs)

    return doing


class _Formatter(logging.Formatter):
    """One record as one line, followed by the frames of its exception. `quiet`: without anybody's values."""

    def __init__(self, process: str, *, quiet: bool) -> None:
        super().__init__(
            f"%(asctime)s.%(msecs)03dZ %(levelname)-7s {escaped(process)} %(name)s: %(message)s",
            datefmt="%Y-%m-%dT%H:%M:%S",
        )
        self.converter = time.gmtime
        self._quiet = quiet

    def words(self, record: logging.LogRecord) -> str:
        """Return what the record says, as a part of one line."""
        if self._quiet and record.name.partition(".")[0] not in _OURS:
            return escaped(_literals(record))
        return escaped(record.getMessage())

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and below it the frames."""
        return self.line(record, self.words(record))

    def line(self, record: logging.LogRecord, words: str) -> str:
        """Return the record's line with these words."""
        told = [f"{name} {value}" for name, value in _fields(record).items()]
        told = [one for one in told if one not in words]
        record.message = f"{words} [{', '.join(told)}]" if told else words
        record.asctime = self.formatTime(record, self.datefmt)
        return "\n".join([self.formatMessage(record), *self.frames(record)])

    def frames(self, record: logging.LogRecord) -> list[str]:
        """Return where the record's error came from."""
        found = [str(where)] if (where := getattr(record, _WHERE, "")) else []
        if record.exc_info and record.exc_info[0] is not None:
            found.append(self.formatException(record.exc_info))
        return found

    def formatException(self, ei: _Raised) -> str:  # noqa: N802  (logging's name)
        """Return where an exception came from and its type; its text only where that may be seen."""
        if ei[1] is None:
            return ""
        if not self._quiet:
            lines = "".join(traceback.format_exception(ei[1])).rstrip().split("\n")
            return "\n".join(f"  {escaped(line)}" for line in lines)
        return "\n".join(_types(ei[1]))


class _JsonFormatter(_Formatter):
    """One record as one line of JSON: time, level, process, logger, message; where known study, association, where.

    A study that the message alone names is a field too.
    """

    def __init__(self, process: str, *, quiet: bool) -> None:
        super().__init__(process, quiet=quiet)
        self._process = escaped(process)

    def line(self, record: logging.LogRecord, words: str) -> str:
        """Return the record's line with these words."""
        fields = _fields(record)
        if study := _study(record, words):
            fields["study"] = study
        frames = self.frames(record)
        told = {
            "time": f"{self.formatTime(record, self.datefmt)}.{record.msecs:03.0f}Z",
            "level": record.levelname,
            "process": self._process,
            "logger": record.name,
            "message": words,
            **fields,
            **({"where": "\n".join(frames)} if frames else {}),
        }
        return json.dumps(told, ensure_ascii=False)


def _fields(record: logging.LogRecord) -> dict[str, str | int]:
    """Return what the record is about; kept with it, since it may be told again later, by another thread."""
    found: dict[str, str | int] = vars(record).setdefault(_FIELDS, dict(_about.get()))
    return dict(found)


def _study(record: logging.LogRecord, words: str) -> str:
    """Return the UID of the study that a record is about, "" for none."""
    if study := _fields(record).get("study"):
        return str(study)
    named = _NAMED_STUDY.search(words)
    return "" if named is None else named[1]


def _types(error: BaseException) -> Iterator[str]:
    """Yield the frames and the types of an exception and of what caused it, the newest first."""
    seen: set[int] = set()
    chained: BaseException | None = error
    while chained is not None and id(chained) not in seen:
        seen.add(id(chained))
        frames = "".join(traceback.format_tb(chained.__traceback__)).rstrip()
        if frames:
            yield frames
        yield f"  {type(chained).__name__}" + (" from" if chained is not error else "")
        chained = chained.__cause__ or (None if chained.__suppress_context__ else chained.__context__)


def _literals(record: logging.LogRecord) -> str:
    """Return the words of a library's line that stand as literals in the code which logged it."""
    code = _caller(record)
    words = {one for one in code.co_consts if isinstance(one, str)} if code is not None else set()
    if not isinstance(record.msg, str):
        return "(words withheld)"
    if record.msg in words:
        return _PLACEHOLDER.sub("…", record.msg).replace("%%", "%") if record.args else record.msg
    found = []
    at = 0
    for part in sorted(words, key=lambda part: (record.msg.find(part), -len(part))):
        start = record.msg.find(part, at)
        if len(part.strip()) > 2 and start >= 0:
            found.append(part.strip())
            at = start + len(part)
    return " … ".join(found) or "(words withheld)"


def _caller(record: logging.LogRecord) -> CodeType | None:
    """Return the code that is logging this record: it is still on the stack."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_lineno == record.lineno and frame.f_code.co_filename == record.pathname:
            return frame.f_code
        frame = frame.f_back
    return None


@dataclass
class _Trouble:
    """What was told at `since` and is not told again for `window` seconds.

    Attributes:
        last: when it came last.
        left_out: lines like it since it was told.
    """

    record: logging.LogRecord
    words: str
    since: float
    last: float
    window: float = WINDOW_S
    left_out: int = 0

    @property
    def until(self) -> float:
        """When it may be told again."""
        return self.since + self.window


class _OneStream(logging.StreamHandler[Any]):
    """Writes lines to standard error; of the same trouble one a minute, while it lasts one in an hour."""

    def __init__(
        self,
        formatter: _Formatter,
        clock: Callable[[], float] = time.monotonic,
        keeps: tuple[KeptLines, _JsonFormatter] | None = None,
    ) -> None:
        super().__init__(sys.stderr)
        self.formatter: _Formatter = formatter
        self._clock = clock
        self._keeps = keeps
        self._told: dict[tuple[object, ...], _Trouble] = {}
        self._due = float("inf")  # when the first of these may be told again
        self._places: dict[tuple[object, ...], int] = {}
        self._timer: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or count it."""
        try:
            self._tell_left_out(self._clock())
            words = self.formatter.words(record)
            if record.levelno < logging.WARNING or self._is_news(record, words):
                self._put(self.formatter.line(record, words))
                self._keep(record)
        except Exception as error:  # noqa: BLE001  (a log line never ends what it tells of)
            self._put(f"a log line of {escaped(record.name)} could not be written: {type(error).__name__}")

    def _keep(self, record: logging.LogRecord) -> None:
        if self._keeps is None or record.levelno < logging.INFO:
            return
        kept, formatter = self._keeps
        words = formatter.words(record)
        if _study(record, words):
            kept.keep(formatter.line(record, words))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        """Say nothing: Python's own would print the values."""

    def flush_left_out(self) -> None:
        """Tell what was left out so far."""
        self.acquire()
        try:
            self._tell_left_out(float("inf"))
        finally:
            self.release()

    def _look(self) -> None:
        """Tell what is due: nothing may be logged any more that would bring it out."""
        self.acquire()
        try:
            self._timer = None
            self._tell_left_out(self._clock())
            if any(one.left_out for one in self._told.values()):
                self._look_later()
        finally:
            self.release()

    def _look_later(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(WINDOW_S, self._look)
            self._timer.daemon = True
            self._timer.start()

    def _is_news(self, record: logging.LogRecord, words: str) -> bool:
        place = (record.name, record.pathname, record.lineno)
        trouble: tuple[object, ...] = (*place, words)
        if trouble not in self._told and self._places.get(place, 0) >= MOST_OF_ONE_PLACE:
            trouble = (*place, None)
        now = self._clock()
        known = self._told.get(trouble)
        if known is not None and now - known.last < QUIET_S:
            known.last = now
            known.left_out += 1
            self._look_later()
            return False
        if known is None:
            self._places[place] = self._places.get(place, 0) + 1
        elif known.left_out:
            self._tell_again(known, "this" if trouble[-1] is not None else "these")
        self._told[trouble] = _Trouble(record, words, now, now)
        self._due = min(self._due, now + WINDOW_S)
        return True

    def _tell_left_out(self, now: float) -> None:
        """Tell of each trouble that is due how often it came; what did not come again is news when it does."""
        if now < self._due:
            return
        for trouble, one in list(self._told.items()):
            if one.until > now:
                continue
            if one.left_out:
                self._tell_again(one, "this" if trouble[-1] is not None else "these")
                continue
            del self._told[trouble]
            place = trouble[:-1]
            self._places[place] = self._places.get(place, 1) - 1
            if not self._places[place]:
                del self._places[place]
        self._due = min((one.until for one in self._told.values()), default=float("inf"))

    def _tell_again(self, one: _Trouble, like: str) -> None:
        again = logging.makeLogRecord({**vars(one.record), "exc_info": None, "created": time.time(), "msecs": 0})
        self._put(
            self.formatter.line(
                again, f"{one.words} ({plural(one.left_out, 'more line', 'more lines')} like {like} left out)"
            )
        )
        one.since, one.left_out, one.window = self._clock(), 0, min(2 * one.window, LONGEST_WINDOW_S)

    def _put(self, line: str) -> None:
        try:
            self.stream.write(line + "\n")
            self.stream.flush()
        except (OSError, ValueError):  # nobody reads any more
            pass


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    # `dicomnode jobs cancel` ends a workflow so: what a person wanted is no error.
    raised = record.exc_info[0] if record.exc_info else None
    return raised is None or raised.__name__ != "DBOSAwaitedWorkflowCancelledError"


def configure(level: str, process: str, form: Literal["text", "json"] = "text", kept: KeptLines | None = None) -> None:
    """Set up logging for this process.

    Args:
        level: "debug" may show patient data.
        process: names it in each line (receiver, worker-0, …).
        form: of a line.
        kept: where the lines about studies are kept, too.
    """
    quiet = level != "debug"
    keeps = None if kept is None else (kept, _JsonFormatter(process, quiet=True))
    handler = _OneStream((_JsonFormatter if form == "json" else _Formatter)(process, quiet=quiet), keeps=keeps)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # It would bring a handler of its own, with another format.
    engine = logging.getLogger("dbos")
    engine.handlers[:], engine.propagate = [handler], False
    if quiet:
        engine.filters[:] = [_is_no_cancellation]
        _quieten_libraries()
    atexit.unregister(_flush)
    atexit.register(_flush, handler)
    sys.excepthook, threading.excepthook, sys.unraisablehook = _on_end, _on_thread, _on_unraisable


def _quieten_libraries() -> None:
    # pynetdicom, pydicom and the scheduler log whole messages and values: those of ours say what a person needs.
    for name in (
        "pydicom",
        "highdicom",
        "alembic.runtime.plugins",
        "dbos",
        "radiomics",
        "matplotlib",
        "PIL",
        "httpx",
    ):
        logging.getLogger(name).setLevel(logging.WARNING)
    # A tick that is late is skipped: the next one finds the same state.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    # It warns of each request that is none, and of each that it has no place for: any caller could fill the log.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    # An unreachable peer is reported once, with its name, by the code that called it.
    logging.getLogger("pynetdicom.transport").setLevel(logging.CRITICAL)
    # What it cannot decode it quotes, and a name sent as a UID is a patient's: `network` says what it was.
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    # pydicom's warnings quote the values they complain of, and those can be a patient's name.
    logging.getLogger("pydicom").setLevel(logging.ERROR)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)


def _flush(handler: _OneStream) -> None:
    handler.flush_left_out()


def _on_end(kind: type[BaseException], error: BaseException, frames: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("dicomnode").critical("ended unexpectedly", exc_info=(kind, error, frames))


def _on_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is None or issubclass(args.exc_type, SystemExit):
        return
    name = args.thread.name if args.thread is not None else "unknown"
    raised = (args.exc_type, args.exc_value, args.exc_traceback)
    logging.getLogger("dicomnode").error("thread %s died", name, exc_info=raised)


def _on_unraisable(args: "sys.UnraisableHookArgs") -> None:
    error = args.exc_value
    raised = None if error is None else (type(error), error, error.__traceback__)
    logging.getLogger("dicomnode").error("an exception that nobody could take", exc_info=raised)


def log_unexpected(log: logging.Logger, error: BaseException, message: str, *args: object) -> None:
    """Log an unexpected error with its type and where it came from; its text shows at debug level only."""
    # Not `exc_info`: whatever other handler there is would show the text.
    log.error(f"{message}: {type(error).__name__}; at", *args, extra={_WHERE: "\n".join(_types(error))})
    log.debug("error text: %s", error)


#: What a child may print beside its log lines: where Python or the system ended it.
_HARMLESS = re.compile(
    rb"(\{\"time\": \")?\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z[ \"]|Traceback \(most recent call last\):$"
    rb"|Fatal Python error: |(Current t|T)hread 0x[0-9a-f]+|terminate called "
    rb"|(free|malloc|double free|corrupted)\b[\w ():!/-]*$"
)
_FRAME = re.compile(rb'  File "[^"]*", line \d+')
_LONGEST_LINE = 1 << 16
#: How the command line begins the message with which it ends.
_LAST_WORDS = b"dicomnode: "


def pass_on(stream: IO[bytes], name: str, hear: Callable[[str], None] | None = None) -> threading.Thread:
    """Pass a child's standard error on to ours, in a thread that ends with it.

    `hear` is called with the command line's message, should the child end with one.

    Its log lines were made by `configure` there. What else comes (a library in C, Python itself) may quote patient
    data: it is counted, and shown at debug level only.
    """

    def run() -> None:
        with stream:
            for line, is_harmless in _judged(stream):
                if is_harmless:
                    os.write(sys.stderr.fileno(), line)
                    if hear is not None and line.startswith(_LAST_WORDS):
                        hear(line.removeprefix(_LAST_WORDS).decode(errors="replace").strip())
                else:
                    log.warning("%s printed a line of %d bytes that is none of ours: left out", name, len(line))
                    log.debug("%s: %s", name, line.decode(errors="replace").rstrip())

    thread = threading.Thread(target=run, name=f"stderr-{name}", daemon=True)
    thread.start()
    return thread


def _judged(stream: IO[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield the lines, and whether each is one of ours (or says only where a process ended)."""
    is_last_word = after_frame = False
    while line := stream.readline(_LONGEST_LINE):
        # The command line's message, perhaps of several lines, is the last that a process says.
        is_last_word = is_last_word or line.startswith(_LAST_WORDS)
        is_frame = _FRAME.match(line) is not None
        is_code = after_frame and line.startswith(b"    ")
        is_type = re.fullmatch(rb"  \w+( from)?\n", line) is not None
        yield line, is_last_word or is_frame or is_code or is_type or _HARMLESS.match(line) is not None
        after_frame = is_frame or (is_code and line.strip(b" ~^\n") == b"")
