"""Reading the file, and reporting every mistake in it with key, value and cure."""

import difflib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dicomnode.config.settings import Config
from dicomnode.errors import ConfigurationError
from dicomnode.files import parse_toml, shipped

#: A key that more tables know is not looked for in all of them. One that stands in no table must belong to some.
_FEW, _SEVERAL = 3, 12


def load(path: Path) -> Config:
    """Read and validate a configuration file.

    Raises:
        ConfigurationError: with every mistake on a line of its own: key, value, cure.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors of Windows put a mark before it
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such file; copy {shipped('ae_config.toml')} and adapt it") from None
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigurationError(
            f"{path}: cannot be read as UTF-8 text ({type(e).__name__}): {e}; save it in the encoding UTF-8"
        ) from None
    try:
        table = parse_toml(text)
    except tomllib.TOMLDecodeError as e:
        raise ConfigurationError(f"{path}: not valid TOML: {e}; strings need quotes, true and false do not") from None
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
        lists = {k: tuple(map(_path, v)) for k, v in value.items() if k == "trusted_keys" and isinstance(v, list)}
        return {k: _path(v) if k in paths else _toml_types(v) for k, v in value.items()} | lists
    if isinstance(value, list):
        return tuple(_toml_types(v) for v in value)
    return value


def _path(value: Any) -> Any:
    return Path(value) if isinstance(value, str) else _toml_types(value)


def _message(error: dict[str, Any]) -> str:
    place = _place(error["loc"])
    if error["type"] == "union_tag_invalid":
        return _unknown_kind(place, error["ctx"]["tag"])
    if error["type"] == "extra_forbidden":
        return _unknown_key(place, str(error["loc"][-1]))
    if error["type"] == "missing":
        return f"{place.key}: is missing; {place.cure}"
    return _brackets(place.key, error) or _wrong_value(place, error)


def _unknown_key(place: "_Place", name: str) -> str:
    if name in place.of_other_kinds:
        return f"{place.key}: does not apply to kind = {place.kind!r}: remove it, or change the kind"
    if elsewhere := _tables_with(name, _FEW if "." in place.key else _SEVERAL):
        return f"{place.key}: unknown key here; it belongs to {' or '.join(elsewhere)}"
    near = difflib.get_close_matches(name, place.known, n=1)
    hint = f"perhaps you meant {near[0]!r}" if near else f"known keys: {', '.join(place.known)}"
    return f"{place.key}: unknown key; {hint}"


def _brackets(key: str, error: dict[str, Any]) -> str:
    """Return what to write where [x] stands for [[x]] or the other way round; "" where that is not the mistake."""
    header = re.sub(r"\[\d+\]", "", key)  # the number says which one is meant; in the file none stands there
    if error["type"] == "tuple_type" and isinstance(error["input"], dict):
        return f"{key}: there may be several of these: write [[{header}]], in double brackets, for each"
    if error["type"] in ("model_type", "model_attributes_type") and isinstance(error["input"], tuple):
        return f"{key}: there is one of these: write [{header}], in single brackets, once"
    return ""


def _wrong_value(place: "_Place", error: dict[str, Any]) -> str:
    what, value = error["msg"].removeprefix("Value error, "), error["input"]
    near = difflib.get_close_matches(str(value), _choices(error), n=1)
    hint = f"; perhaps you meant {near[0]!r}" if near else ""
    is_plain = value is not None and not isinstance(value, dict | tuple)
    shown = f" = {str(value) if isinstance(value, Path) else value!r}" if is_plain else ""
    return f"{place.key}{shown}: {what}{hint}" + (f"; {place.cure}" if place.cure else "")


def _tables_with(name: str, most: int) -> list[str]:
    """Return the tables that know a key of this name, as a person writes them, where they are few enough to help."""
    # The kinds of a table stand in the file under one name.
    found = list(dict.fromkeys(place for place, table in _tables(Config, "") if name in table.model_fields))
    return found if len(found) <= most else []


def _tables(table: type[BaseModel], prefix: str) -> Iterator[tuple[str, type[BaseModel]]]:
    for key, info in table.model_fields.items():
        if inner := _tables_in(info.annotation):
            several = "tuple" in str(info.annotation)
            place = f"{prefix}{key}"
            yield from ((f"[[{place}]]" if several else f"[{place}]", one) for one in inner)
            yield from (found for one in inner for found in _tables(one, f"{place}."))


def _choices(error: dict[str, Any]) -> list[str]:
    expected = str(error.get("ctx", {}).get("expected", "")) if error["type"] == "literal_error" else ""
    return [w.strip("' ") for w in expected.replace(" or ", ",").split(",") if w]


@dataclass(frozen=True)
class _Place:
    """Where in the file a mistake is.

    Attributes:
        key: the key as a person would name it, such as "destination[1].port".
        known: the keys known in its table; `cure` is the description of this one.
        kind: the kind of its table, where there are several; `kinds` are all of them, each in words.
        of_other_kinds: keys that only tables of the other kinds know.
    """

    key: str
    known: list[str]
    cure: str
    kind: str
    kinds: dict[str, str]
    of_other_kinds: frozenset[str]


def _unknown_kind(place: _Place, given: str) -> str:
    near = difflib.get_close_matches(given, place.kinds, n=1)
    hint = f"perhaps you meant {near[0]!r}; " if near else ""
    cure = " or ".join(f"{kind!r} ({what})" for kind, what in place.kinds.items())
    return f"{place.key}.kind = {given!r}: unknown kind; {hint}give {cure}"


def _place(location: tuple[str | int, ...]) -> _Place:
    table: type[BaseModel] = Config
    tables: list[type[BaseModel]] = []
    key = cure = kind = ""
    for part in location:
        if isinstance(part, int):
            key += f"[{part + 1}]"
            continue
        of_kinds = _of_kinds(tables)
        if not kind and part in of_kinds:  # pydantic names the table's kind between its number and its key
            table, kind = of_kinds[part], part
            continue
        key += f".{part}" if key else part
        info = table.model_fields.get(part)
        if info is None:
            continue
        cure = info.description or cure
        if inner := _tables_in(info.annotation):
            table, tables, kind = inner[0], inner, ""
    known = list(table.model_fields)
    return _Place(
        key,
        known,
        cure,
        kind,
        {name: str(of_kind.model_fields["kind"].description) for name, of_kind in _of_kinds(tables).items()},
        frozenset(name for one in tables for name in one.model_fields).difference(known),
    )


def _of_kinds(tables: list[type[BaseModel]]) -> dict[str, type[BaseModel]]:
    """Return the tables by their kind, where there are several kinds."""
    return {get_args(t.model_fields["kind"].annotation)[0]: t for t in tables} if len(tables) > 1 else {}


def _tables_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for part in get_args(annotation) for table in _tables_in(part)]
