"""The gate's verdict on a run, as the file `gate.json` in the run: a consent to one step, or the reasons against it."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dicomnode.errors import UsageError
from training.files import write_json

GATE = "gate.json"


@dataclass(frozen=True)
class GateCheck:
    """One condition. `text` says what was found and what was asked for."""

    name: str
    passed: bool
    text: str


@dataclass(frozen=True)
class GateVerdict:
    """All conditions, and what was compared with what.

    Attributes:
        passed, checks: all of the checks have to be passed.
        bundle_sha256: of the run's bundle.
        current_sha256: of the bundle in service; "" where nothing served before.
        made_at: when; each comparison is a consent of its own.
        bar: the thresholds (`training.evaluation.bar`); empty in a verdict of before, by the run's own.
        departures: where these are not the defaults.
        judged_on: on whom the bundle in service was judged; "" without one.
    """

    passed: bool
    checks: tuple[GateCheck, ...]
    bundle_sha256: str
    current_sha256: str
    made_at: str
    bar: Mapping[str, int | float | tuple[float, float] | None] = field(default_factory=dict)
    departures: tuple[str, ...] = ()
    judged_on: str = ""


def write(run: Path, verdict: GateVerdict) -> None:
    """Write the verdict into the run."""
    write_json(run / GATE, asdict(verdict))


def read(run: Path, cure: str) -> tuple[GateVerdict, str]:
    """Return the verdict in a run, and the file's SHA-256.

    Args:
        run: the run's folder.
        cure: the command that makes one, for messages.

    Raises:
        UsageError: there is none, or it is no whole verdict.
    """
    path = run / GATE
    if not path.is_file():
        raise UsageError(f"{path} does not exist: run {cure} first")
    text = path.read_bytes()
    try:
        return TypeAdapter(GateVerdict).validate_json(text), hashlib.sha256(text).hexdigest()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        reason = f"{where}: {first['msg']}" if where else first["msg"]
        raise UsageError(f"{path} is not a verdict of the gate ({reason}): run {cure} again") from None
