"""How values stand in the workflow engine's tables: as JSON, which runs nothing when it is read.

The engine's own way is pickle, and whoever may write a pickle into the database runs code in the workers. Which way a
row is read is said by the row, so it is not enough to configure another one: `install` puts a restricted reader in the
place of the engine's own, in every process that opens the queue.

A value is plain: None, bool, int, float, str, list, tuple, dict with text as keys; an exception is one of the classes
that are listed here, with plain arguments. What older versions have pickled is read by an unpickler that knows these
exceptions and nothing else.
"""

import base64
import builtins
import io
import json
import pickle
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import dbos._error
from dbos import _serialization
from dbos._serialization import DefaultSerializer, Serializer

from dicomnode import errors

_PREFIX: Final = "dicomnode:"
_TUPLE, _ERROR, _MAP = "~tuple", "~error", "~map"
#: No value of ours comes near; a longer one is not read.
_MOST_CHARACTERS = 16 << 20


def _of(module: object) -> dict[str, type[BaseException]]:
    found = vars(module).items()
    return {n: c for n, c in found if isinstance(c, type) and issubclass(c, BaseException) and c.__name__ == n}


#: By module, the exceptions that a row may name.
_ERRORS: Final[Mapping[str, Mapping[str, type[BaseException]]]] = {
    "dicomnode.errors": _of(errors),
    "dbos._error": _of(dbos._error),
    "builtins": {
        n: c for n, c in _of(builtins).items() if issubclass(c, Exception) and not issubclass(c, BaseExceptionGroup)
    },
}


class JsonSerializer(Serializer):
    """Plain values and known exceptions as JSON; reads what older versions have pickled too, without running it."""

    def name(self) -> str:
        """Stands in each row that is written so."""
        return "dicomnode_json"

    def serialize(self, data: Any) -> str:
        """Raise TypeError where the value is none that may stand in the queue."""
        return _PREFIX + json.dumps(_plain(data), separators=(",", ":"))

    def deserialize(self, serialized_data: str) -> Any:
        """Raise ValueError where it is no such value."""
        if len(serialized_data) > _MOST_CHARACTERS:
            raise ValueError(
                f"a value of {len(serialized_data)} characters in the queue's database: too long to be ours"
            )
        if not serialized_data.startswith(_PREFIX):
            return read_pickle(serialized_data)
        return _value(json.loads(serialized_data.removeprefix(_PREFIX)))


def install() -> JsonSerializer:
    """Let no row of the queue be unpickled by the engine, whatever the row says of itself; return the serialiser."""
    reader = cast(Any, lambda _self, serialized_data: read_pickle(serialized_data))
    DefaultSerializer.deserialize = reader  # type: ignore[method-assign]
    DefaultSerializer.serialize = cast(Any, _pickled)  # type: ignore[method-assign]
    assert isinstance(_serialization.DBOSDefaultSerializer, DefaultSerializer)
    return JsonSerializer()


def _pickled(_self: object, data: Any) -> str:
    """Write a value into a row that an older version has begun. An exception in it is one that `read_pickle` knows."""
    return base64.b64encode(pickle.dumps(_value(_plain(data)))).decode()


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return {_TUPLE: [_plain(v) for v in value]}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        if not all(isinstance(k, str) for k in value):
            raise TypeError("a mapping whose keys are no text cannot stand in the queue")
        made = {k: _plain(v) for k, v in value.items()}
        return {_MAP: made} if any(k.startswith("~") for k in made) else made
    if isinstance(value, BaseException):
        return {_ERROR: _named(value)}
    raise TypeError(f"a {type(value).__name__} cannot stand in the queue: plain values and known exceptions only")


def _named(error: BaseException) -> list[Any]:
    """Return module, class and arguments of an exception; what nobody knows becomes a RuntimeError with its name."""
    kind = type(error)
    known = _ERRORS.get(kind.__module__, {}).get(kind.__name__) is kind
    # What calling the class would take, as pickle asks for it.
    reduced = error.__reduce__()
    arguments = reduced[1] if isinstance(reduced, tuple) and isinstance(reduced[1], tuple) else error.args
    if known:
        try:
            return [kind.__module__, kind.__name__, [_plain(a) for a in arguments]]
        except TypeError:  # such as a nested exception's traceback: the text is what matters
            return [kind.__module__, kind.__name__, [str(error)]] if kind.__module__ == "builtins" else _unknown(kind)
    return _unknown(kind)


def _unknown(kind: type[BaseException]) -> list[Any]:
    # Not its text: that of a library may quote a patient's values.
    return ["builtins", "RuntimeError", [f"{kind.__module__}.{kind.__qualname__}"]]


def _value(read: Any) -> Any:
    if isinstance(read, list):
        return [_value(v) for v in read]
    if not isinstance(read, dict):
        return read
    if read.keys() == {_TUPLE}:
        return tuple(_value(v) for v in read[_TUPLE])
    if read.keys() == {_MAP}:
        return {k: _value(v) for k, v in read[_MAP].items()}
    if read.keys() == {_ERROR}:
        module, name, arguments = read[_ERROR]
        return _made(module, name)(*(_value(a) for a in arguments))
    return {k: _value(v) for k, v in read.items()}


def _made(module: str, name: str) -> Callable[..., BaseException]:
    found = _ERRORS.get(module, {}).get(name)
    if found is None:
        raise pickle.UnpicklingError(f"a row of the queue names {module}.{name}: not a class that may stand there")

    def make(*arguments: Any) -> BaseException:
        try:
            return found(*arguments)
        except Exception:  # noqa: BLE001  (its arguments are whatever stands in the row)
            return RuntimeError(f"{module}.{name}")

    return make


class _Reader(pickle.Unpickler):
    """Builds plain values and the known exceptions; all else is refused before it is even looked up."""

    def find_class(self, module: str, name: str) -> Any:
        """Give what makes the exception, not its class: a pickle could change a class' attributes."""
        return _Maker(module, name)

    def persistent_load(self, pid: Any) -> Any:
        """Raise UnpicklingError: nothing of ours has such a reference."""
        raise pickle.UnpicklingError(f"a reference in a row of the queue ({type(pid).__name__})")


class _Maker:
    """Callable, and nothing can be set on it."""

    __slots__ = ("_make",)
    _make: Callable[..., BaseException]

    def __init__(self, module: str, name: str) -> None:
        object.__setattr__(self, "_make", _made(module, name))

    def __call__(self, *arguments: Any) -> BaseException:
        made: BaseException = self._make(*arguments)
        return made

    def __setattr__(self, name: str, value: object) -> None:
        raise pickle.UnpicklingError("a row of the queue changes a class")


def read_pickle(serialized: str) -> Any:
    """Read what an older version has pickled (base64): plain values and known exceptions.

    Raises:
        pickle.UnpicklingError: it names anything else, or is no pickle.
    """
    if len(serialized) > _MOST_CHARACTERS:
        raise pickle.UnpicklingError("a row of the queue is too long to be ours")
    try:
        return _Reader(io.BytesIO(base64.b64decode(serialized, validate=True))).load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # noqa: BLE001  (a damaged pickle provokes anything)
        raise pickle.UnpicklingError(f"a row of the queue cannot be read ({type(error).__name__})") from None
