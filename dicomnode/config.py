"""`ae_config.toml` becomes one frozen, validated record: this module is the only reader of the file.

Paths in the file are relative to the file's own folder, so that the example runs wherever it is copied to.
Descriptions of the fields are written as the cure that a person needs when the value is wrong.
"""

import difflib
import ipaddress
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from dicomnode.analysis import rules
from dicomnode.analysis.kernels import Family
from dicomnode.analysis.rules import Contrast, Rules
from dicomnode.errors import ConfigurationError

ObjectName = Literal["seg", "measurements", "risk", "summary"]
OBJECTS: tuple[ObjectName, ...] = get_args(ObjectName)
TransferSyntaxName = Literal["explicit-le", "implicit-le"]


def _ae_title(value: str) -> str:
    """PS3.5 6.2, VR AE: 1 to 16 characters of the default repertoire, no backslash, no control characters."""
    if not 1 <= len(value.strip()) <= 16 or "\\" in value or not value.isascii() or not value.isprintable():
        raise ValueError("not an application entity title")
    return value.strip()


def _network(value: str) -> str:
    ipaddress.ip_network(value, strict=False)
    return value


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as e:
        raise ValueError(f"not a regular expression: {e}") from None
    return value


AeTitle = Annotated[str, AfterValidator(_ae_title)]
Port = Annotated[int, Field(ge=1, le=65535)]
Patterns = tuple[Annotated[str, AfterValidator(_pattern)], ...]
PATTERNS = "regular expressions in lower case, such as ['lung', 'thin']"
_RULES = rules.DEFAULT


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Caller(_Table):
    """Who may open an association. An AE title proves nothing by itself: name the address too."""

    ae_title: AeTitle = Field("*", description="give the caller's AE title (1 to 16 plain characters), or '*' for any")
    address: Annotated[str, AfterValidator(_network)] = Field(
        "0.0.0.0/0", description="give an address or a network, such as '10.1.2.3' or '10.1.0.0/16'"
    )

    report_to: str = Field(
        "",
        pattern=r"^$|^.+:\d{1,5}$",
        description="give 'host:port' for storage commitment reports to this caller, or '' for its own association",
    )


class Node(_Table):
    """The DICOM listener."""

    ae_title: AeTitle = Field("DICOMNODE", description="give this node's AE title: 1 to 16 plain characters")
    host: str = Field("127.0.0.1", description="give the address to listen on; '0.0.0.0' listens on every interface")
    port: Port = Field(11112, description="give a free TCP port from 1 to 65535 (below 1024 needs privileges)")
    check_called_ae: bool = Field(True, description="give true to accept only calls to our AE title, else false")
    callers: tuple[Caller, ...] = Field((), description="give [[node.callers]] tables; none means that anyone may send")
    max_associations: int = Field(
        50, ge=1, le=900, description="give the number of associations per receiving process, from 1 to 900"
    )
    receivers: int = Field(
        1, ge=1, le=16, description="give the number of receiving processes that share the port, 1 to 16"
    )
    max_pdu_bytes: int = Field(
        1 << 20, ge=4096, le=1 << 20, description="give the largest PDU we take, in bytes: 4096 to 1048576"
    )
    network_timeout_s: float = Field(60, gt=0, description="give seconds of silence after which a caller is cut off")


class Storage(_Table):
    """Folders (relative to the configuration file) and the database."""

    spool: Path = Field(Path("var/spool"), description="give the folder for received images")
    results: Path = Field(Path("var/results"), description="give the folder for results")
    state: Path = Field(Path("var/state"), description="give the folder for the catalogue and the queue")
    database_url: str = Field(
        "",
        pattern=r"^$|^postgresql://",
        description="give '' for SQLite files in `state`, or a URL that starts with postgresql://",
    )
    retention_days: float = Field(
        7.0, ge=0, description="give the days for which a delivered study is kept at least after its last image"
    )
    low_free_gb: float = Field(
        10.0, ge=0, description="give the free disk space, in GB, below which delivered studies are removed"
    )
    minimum_free_gb: float = Field(
        2.0, ge=0, description="give the free disk space, in GB, below which nothing more is accepted"
    )

    @field_validator("minimum_free_gb")
    @classmethod
    def _marks(cls, value: float, info: ValidationInfo) -> float:
        if value > info.data.get("low_free_gb", value):
            raise ValueError("is above low_free_gb: nothing would be removed before everything is refused")
        return value


class Settle(_Table):
    """When a study counts as complete."""

    release_s: float = Field(5, ge=0, description="give the seconds to wait after a complete study's last association")
    quiet_s: float = Field(60, gt=0, description="give the seconds of silence after which an unclear study is taken")
    tick_s: float = Field(1, gt=0, le=60, description="give the seconds between two looks, above 0 and up to 60")


class SelectionTable(_Table):
    """Which series are analysed (`analysis.rules` explains the fields and has the defaults)."""

    modalities: tuple[str, ...] = Field(_RULES.modalities, min_length=1, description="give a list such as ['CT']")
    body_parts: Patterns = Field(
        _RULES.body_parts, description=f"give a list of words for the chest, {PATTERNS}, or leave the key out"
    )
    other_body_parts: Patterns = Field(
        _RULES.other_body_parts, description=f"give a list of words for other parts of the body, {PATTERNS}"
    )
    body_part_may_be_missing: bool = Field(True, description="give false to ask for a word for the chest, else true")
    max_degrees_from_axial: float = Field(
        _RULES.max_degrees_from_axial, ge=0, le=40, description="give an angle in degrees, 0 to 40"
    )
    min_slices: int = Field(_RULES.min_slices, ge=2, description="give a number of slices, at least 2")
    min_coverage_mm: float = Field(
        _RULES.min_coverage_mm, ge=0, description="give the distance from the first slice to the last, in mm"
    )
    max_step_mm: float | None = Field(
        None, gt=0, description="give the largest distance between slices, in mm; leave the key out for no limit"
    )
    max_thickness_mm: float | None = Field(
        None, gt=0, description="give the largest Slice Thickness, in mm; leave the key out for no limit"
    )
    kernels: tuple[Family, ...] = Field(
        _RULES.kernels, min_length=1, description=f"give some of {', '.join(_RULES.kernels)}, the best first"
    )
    contrast: Contrast = Field(_RULES.contrast, description="give 'allowed', 'preferred' or 'refused'")
    image_type_refused: tuple[str, ...] = Field(
        _RULES.image_type_refused, description="give a list of values of Image Type, such as ['LOCALIZER']"
    )
    image_type_required: tuple[str, ...] = Field(
        _RULES.image_type_required, description="give a list of values of Image Type, such as ['AXIAL']"
    )
    description_include: Patterns = Field((), description=f"give a list of patterns for Series Description, {PATTERNS}")
    description_exclude: Patterns = Field((), description=f"give a list of patterns for Series Description, {PATTERNS}")

    @field_validator("kernels")
    @classmethod
    def _once(cls, value: tuple[Family, ...]) -> tuple[Family, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a family is named twice")
        return value

    @property
    def rules(self) -> Rules:
        """The record that the analysis takes."""
        return Rules(**{name: getattr(self, name) for name in type(self).model_fields})


class AnalysisTable(_Table):
    """Which algorithms make the numbers, and from which series."""

    selection: SelectionTable = Field(SelectionTable(), description="give a table [analysis.selection]")

    segmenter: Literal["classical", "lungmask"] = Field(
        "classical", description="give 'classical' (needs no weights) or 'lungmask' (needs lungmask_weights)"
    )
    lungmask_weights: Path | None = Field(
        None, description="give 'R231' (after `dicomnode weights fetch R231`), or the path of such a weights file"
    )
    lungmask_sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="give the SHA-256 of that file: 64 lower-case hex digits"
    )
    weights: Path = Field(Path("weights"), description="give the folder that holds the model bundles")
    bundle: str = Field("", description="give the name of a bundle's folder in `weights`, or '' for no risk")
    allow_demo_bundles: bool = Field(
        False, description="give true only to try things out: it serves bundles trained on synthetic data"
    )
    radiomics: bool = Field(True, description="give true to compute the radiomics features, else false")
    device: str = Field("cpu", pattern=r"^cpu$|^cuda(:\d+)?$", description="give 'cpu', 'cuda' or 'cuda:0'")

    @field_validator("lungmask_sha256")
    @classmethod
    def _weights(cls, value: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("segmenter") == "lungmask" and info.data.get("lungmask_weights") is None:
            raise ValueError("segmenter = 'lungmask' needs lungmask_weights (and lungmask_sha256 for a path)")
        return value

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)


class WeightsTable(_Table):
    """Where `dicomnode weights fetch` gets files from."""

    mirror: str = Field(
        "",
        pattern=r"^$|^https?://",
        description="give '' for the publisher's server, or the http(s) URL of a folder with the same files",
    )


class Destination(_Table):
    """One PACS that gets results. Each destination has its own queue."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,32}$", description="give a name of letters, digits, '-' and '_'")
    ae_title: AeTitle = Field(description="give the peer's AE title: 1 to 16 plain characters")
    host: str = Field(min_length=1, description="give the peer's host name or address")
    port: Port = Field(description="give the peer's TCP port, 1 to 65535")
    calling_ae_title: AeTitle | None = Field(None, description="give the AE title to call with (default: the node's)")
    objects: tuple[ObjectName, ...] = Field(OBJECTS, description=f"give a list of some of: {', '.join(OBJECTS)}")
    refused_report: bool = Field(False, description="give true to send a short «not analysed: reason» report")
    transfer_syntax: TransferSyntaxName = Field("explicit-le", description="give 'explicit-le' or 'implicit-le'")
    concurrency: int = Field(1, ge=1, le=16, description="give the number of studies sent at once, 1 to 16")
    timeout_s: float = Field(30, gt=0, description="give the seconds to wait for an answer")
    retry_first_s: float = Field(10, gt=0, description="give the seconds before the first new attempt")
    retry_longest_s: float = Field(1800, gt=0, description="give the longest pause between attempts, in seconds")
    retry_for_s: float = Field(172800, ge=0, description="give the seconds after which delivery counts as failed")
    commitment: bool = Field(False, description="give true to ask this peer for storage commitment")
    commitment_timeout_s: float = Field(
        3600, gt=0, description="give the seconds without a commitment report after which it is asked for again"
    )


class Worker(_Table):
    """The process that analyses."""

    processes: int = Field(1, ge=0, le=64, description="give the number of workers that `serve` starts, 0 to 64")
    concurrency: int = Field(
        1, ge=1, le=16, description="give the number of studies a worker analyses at once, 1 to 16"
    )
    drain_s: float = Field(30, ge=0, description="give the seconds that running work may take to stop")
    dead_after_s: float = Field(
        60, ge=1, description="give the seconds of silence after which a worker's work goes to others, 1 or more"
    )


class Logging(_Table):
    """Logs go to standard error, for journald or a container to keep."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="give 'debug', 'info', 'warning' or 'error'; only 'debug' may show patient data"
    )


class Config(_Table):
    """The whole file. `folder` is where the file lies: relative paths have been resolved against it."""

    node: Node = Node()
    storage: Storage = Storage()
    settle: Settle = Settle()
    analysis: AnalysisTable = AnalysisTable()
    weights: WeightsTable = WeightsTable()
    destination: tuple[Destination, ...] = ()
    worker: Worker = Worker()
    logging: Logging = Logging()

    @field_validator("destination")
    @classmethod
    def _unique(cls, value: tuple[Destination, ...]) -> tuple[Destination, ...]:
        names = [d.name for d in value]
        doubled = sorted({n for n in names if names.count(n) > 1})
        if doubled:
            raise ValueError(f"two destinations are named {doubled[0]!r}: give each a name of its own")
        return value

    @property
    def catalog_url(self) -> str:
        """SQLAlchemy URL of the catalogue."""
        return _driver(self.storage.database_url) or f"sqlite:///{self.storage.state / 'catalog.sqlite'}"

    @property
    def queue_url(self) -> str:
        """SQLAlchemy URL of the workflow engine's tables (DBOS keeps them in a schema of its own)."""
        return self.storage.database_url or f"sqlite:///{self.storage.state / 'queue.sqlite'}"

    def on_device(self, device: str) -> Self:
        """The same with another compute device, for one worker. Raises ConfigurationError."""
        try:
            analysis = AnalysisTable.model_validate({**self.analysis.model_dump(), "device": device})
        except ValidationError:
            raise ConfigurationError(f"device {device!r}: give 'cpu', 'cuda' or 'cuda:0'") from None
        return self.model_copy(update={"analysis": analysis})

    def resolved(self, folder: Path) -> Self:
        """The same with every path made absolute against `folder`."""
        storage = self.storage.model_copy(
            update={k: folder / getattr(self.storage, k) for k in ("spool", "results", "state")}
        )
        weights = self.analysis.lungmask_weights
        analysis = self.analysis.model_copy(
            update={
                "weights": folder / self.analysis.weights,
                "lungmask_weights": None if weights is None else folder / weights,
            }
        )
        return self.model_copy(update={"storage": storage, "analysis": analysis})


def _driver(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


def load(path: Path) -> Config:
    """Read and validate a configuration file.

    Raises:
        ConfigurationError: with every mistake on a line of its own: key, value, cure.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: there is no such file; copy ae_config.toml and adapt it") from None
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigurationError(f"{path}: cannot be read as UTF-8 text ({type(e).__name__}): {e}") from None
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise ConfigurationError(f"{path}: this is not TOML: {e}; strings need quotes, true and false do not") from None
    return parse(table, path)


def parse(table: dict[str, Any], path: Path) -> Config:
    """Validate a parsed file; `path` is for messages and for resolving relative paths. Raises ConfigurationError."""
    try:
        return Config.model_validate(_toml_types(table)).resolved(path.parent.absolute())
    except ValidationError as e:
        raise ConfigurationError("\n".join(f"{path}: {_message(dict(x))}" for x in e.errors())) from None


def _toml_types(value: Any) -> Any:
    """TOML has arrays and strings where the records have tuples and paths; strict validation tells them apart."""
    if isinstance(value, dict):
        paths = {"spool", "results", "state", "weights", "lungmask_weights"}
        return {k: Path(v) if k in paths and isinstance(v, str) else _toml_types(v) for k, v in value.items()}
    if isinstance(value, list):
        return tuple(_toml_types(v) for v in value)
    return value


def _message(error: dict[str, Any]) -> str:
    location: tuple[str | int, ...] = error["loc"]
    key = "".join(f"[{p + 1}]" if isinstance(p, int) else f".{p}" for p in location).lstrip(".")
    known, cure = _known_fields(location)
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"perhaps you meant {near[0]!r}" if near else f"known here: {', '.join(known)}"
        return f"{key}: unknown key; {hint}"
    what = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{key}: is missing; {cure}"
    value = error["input"]
    near = difflib.get_close_matches(str(value), _choices(error), n=1)
    hint = f"; perhaps you meant {near[0]!r}" if near else ""
    shown = f" = {str(value) if isinstance(value, Path) else value!r}" if not isinstance(value, dict | tuple) else ""
    return f"{key}{shown}: {what}{hint}" + (f"; {cure}" if cure else "")


def _choices(error: dict[str, Any]) -> list[str]:
    expected = str(error.get("ctx", {}).get("expected", "")) if error["type"] == "literal_error" else ""
    return [w.strip("' ") for w in expected.replace(" or ", ",").split(",")]


def _known_fields(location: tuple[str | int, ...]) -> tuple[list[str], str]:
    """The keys known in the table that `location` lies in, and the description (the cure) of the named one."""
    table: type[BaseModel] = Config
    cure = ""
    for part in (p for p in location if isinstance(p, str)):
        if part not in table.model_fields:
            break
        info = table.model_fields[part]
        cure = info.description or cure
        inner = info.annotation
        candidates = [a for a in (inner, *get_args(inner)) if isinstance(a, type) and issubclass(a, BaseModel)]
        if not candidates:
            break
        table = candidates[0]
    return list(table.model_fields), cure
