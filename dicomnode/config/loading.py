"""Reads the file, and says what is wrong with it: every mistake, with key, value and cure."""

import difflib
import tomllib
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dicomnode.config.settings import Config
from dicomnode.errors import ConfigurationError


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
        raise ConfigurationError(
            "\n".join(f"{path}: {_message(dict(x))}" for x in e.errors() if _is_told(x, e))
        ) from None


def _is_told(error: ErrorDetails, all_of_them: ValidationError) -> bool:
    """Not that a list is too short, where the reason is that one of its members was refused."""
    where = error["loc"]
    return error["type"] != "too_short" or not any(x["loc"][:-1] == where for x in all_of_them.errors())


def _toml_types(value: Any) -> Any:
    """TOML has arrays and strings where the records have tuples and paths; strict validation tells them apart."""
    if isinstance(value, dict):
        paths = {"spool", "results", "state", "weights", "lungmask_weights", "lungmask_lobe_weights", "secret_file"}
        paths |= {"folder", "settings"}
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
    is_plain = value is not None and not isinstance(value, dict | tuple)
    shown = f" = {str(value) if isinstance(value, Path) else value!r}" if is_plain else ""
    return f"{key}{shown}: {what}{hint}" + (f"; {cure}" if cure else "")


def _choices(error: dict[str, Any]) -> list[str]:
    expected = str(error.get("ctx", {}).get("expected", "")) if error["type"] == "literal_error" else ""
    return [w.strip("' ") for w in expected.replace(" or ", ",").split(",")]


def _known_fields(location: tuple[str | int, ...]) -> tuple[list[str], str]:
    """Return the keys known in the table that `location` lies in, and the description (the cure) of the named one."""
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
