"""The registry's tables, written whole."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dicomnode.errors import UsageError
from dicomnode.files import write_whole

#: What begins a formula in one spreadsheet or another (OWASP, «CSV Injection»), full width too.
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_CONTROL = ("\t", "\r", "\n", "\0")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write a CSV file in UTF-8; None becomes an empty cell, and keys that are no column are left out.

    No cell is a formula to a spreadsheet (`harmless`).
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows({k: harmless(v) for k, v in row.items()} for row in rows)
    write_whole(path, text.getvalue().encode())


def harmless(value: object) -> object:
    """Return a cell's value as no spreadsheet runs it: text that begins like a formula gets an apostrophe before it.

    What came from an image's header stands in such a cell. Numbers stay numbers, negative ones too, also as text.
    """
    if not isinstance(value, str):
        return "" if value is None else value
    if not value.lstrip().startswith(_FORMULA) and not value.startswith(_CONTROL):
        return value
    return value if _NUMBER.fullmatch(value) else "'" + value


def write_features(path: Path, features: Mapping[str, Mapping[str, float]]) -> None:
    """Write features.parquet.

    Args:
        path: the file.
        features: by scan, in the order of scans.csv, what was measured; null where a scan lacks what others have.

    Raises:
        UsageError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415  (needed here only)
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise UsageError(
            "a registry needs pyarrow, of the extra training: deploy/install.sh --upgrade --training"
        ) from None
    names = sorted({name for of_scan in features.values() for name in of_scan})
    columns = {name: pa.array([f.get(name) for f in features.values()], pa.float64()) for name in names}
    packed = io.BytesIO()
    parquet.write_table(pa.table({"scan": pa.array(list(features), pa.string()), **columns}), packed)
    write_whole(path, packed.getvalue())
