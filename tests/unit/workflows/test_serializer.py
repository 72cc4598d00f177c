"""Nothing that stands in the queue's database runs code, and what older versions have left there is read."""

import base64
import pickle
from pathlib import Path
from typing import Any

import pytest
from dbos import _serialization
from dbos._error import DBOSMaxStepRetriesExceeded
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.errors import DatabaseError, RefusedError, SpoolError
from dicomnode.workflows.serializer import JsonSerializer, install, read_pickle

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
JSON = JsonSerializer()


def pickled(value: Any) -> str:
    return base64.b64encode(pickle.dumps(value)).decode()


class Planted:
    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.made,)


@settings(deadline=None)
@given(value=PLAIN)
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    assert JSON.deserialize(JSON.serialize(value)) == value
    assert read_pickle(pickled(value)) == value


@pytest.mark.parametrize(
    "error",
    [
        DatabaseError("away"),
        RefusedError("too-large", "It is."),
        SpoolError("x"),
        ValueError("y", 3),
        OSError(2, "gone"),
    ],
)
def test_errors_come_back_as_they_were(error: Exception) -> None:
    for found in (JSON.deserialize(JSON.serialize(error)), read_pickle(pickled(error))):
        assert type(found) is type(error)
        assert found.args == error.args


def test_the_engines_own_errors_come_back() -> None:
    found = JSON.deserialize(JSON.serialize(DBOSMaxStepRetriesExceeded("send", 3, [DatabaseError("away")])))
    assert isinstance(found, DBOSMaxStepRetriesExceeded)
    assert isinstance(found.errors[0], DatabaseError)


def test_an_error_of_a_library_leaves_its_name_and_not_its_text() -> None:
    from sqlalchemy.exc import IntegrityError

    found = JSON.deserialize(JSON.serialize(IntegrityError("INSERT", {"name": "DOE^JANE"}, Exception())))
    assert type(found) is RuntimeError
    assert str(found) == "sqlalchemy.exc.IntegrityError"


def test_what_is_no_plain_value_cannot_be_queued() -> None:
    with pytest.raises(TypeError, match="Path cannot stand in the queue"):
        JSON.serialize({"args": (Path("x"),)})


@pytest.mark.parametrize("said", ["py_pickle", None, "dicomnode_json"])
def test_a_planted_pickle_does_not_run_whatever_the_row_says_of_itself(tmp_path: Path, said: str | None) -> None:
    serializer = install()
    made = tmp_path / "ran"
    for value in (Planted(made), {"args": (Planted(made),), "kwargs": {}}, ValueError(Planted(made))):
        with pytest.raises(pickle.UnpicklingError, match="not a class that may stand there"):
            _serialization.deserialize_args(pickled(value), said, serializer)
        with pytest.raises(pickle.UnpicklingError):
            _serialization.deserialize_exception(pickled(value), said, serializer)
    assert not made.exists()


@pytest.mark.parametrize(
    "code",
    [
        b"cdicomnode.errors\nos\n.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cbuiltins\nValueError\n}S'may_retry'\nI01\nsb.",  # sets an attribute of a class
        b"cdicomnode.errors\nSpoolError\n(N}S'exit_code'\nI0\nsub.",
        b"P1\n.",
        b"\x80\x04\x95",
        b"",
    ],
)
def test_a_pickle_changes_no_class(code: bytes) -> None:
    with pytest.raises(pickle.UnpicklingError):
        read_pickle(base64.b64encode(code).decode())
    assert SpoolError.exit_code == 5


def test_what_an_older_version_began_is_written_so_that_it_can_be_read() -> None:
    serializer = install()
    text, name = _serialization.serialize_value_as((1, None, "x"), "py_pickle", serializer)
    assert name == "py_pickle"
    assert text is not None
    assert _serialization.deserialize_value(text, name, serializer) == (1, None, "x")
