"""Plain values as TOML 1.0."""

import json
from collections.abc import Mapping

import numpy as np


def to_toml(table: Mapping[str, object]) -> str:
    """Return a mapping of plain values, lists, tables of such, and lists of tables of plain values, as TOML 1.0.

    Raises:
        TypeError: a value has no such form.
    """
    return "\n".join(_lines(table, "")) + "\n"


def _lines(table: Mapping[str, object], prefix: str) -> list[str]:
    plain = {k: v for k, v in table.items() if not isinstance(v, Mapping) and not _is_tables(v)}
    lines = [f"{_key(k)} = {_value(v)}" for k, v in plain.items()]
    for key, value in table.items():
        name = prefix + _key(key)
        if isinstance(value, Mapping):
            lines += ["", f"[{name}]", *_lines(value, f"{name}.")]
        elif _is_tables(value):
            assert isinstance(value, list)
            for entry in value:
                lines += ["", f"[[{name}]]", *(f"{_key(k)} = {_value(v)}" for k, v in entry.items())]
    return lines


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) for v in value)


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and np.isfinite(value):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # JSON's escapes are TOML's
    if isinstance(value, list):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    raise TypeError(f"{value!r} has no form in TOML here")
