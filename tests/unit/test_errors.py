"""The errors come back as they were from the workflow engine, which pickles that of a step that failed."""

import inspect
import pickle

import pytest

from dicomnode import errors
from dicomnode.errors import DicomnodeError, RefusedError

ALL = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, DicomnodeError)]


@pytest.mark.parametrize("error", ALL)
def test_an_error_survives_the_engine(error: type[DicomnodeError]) -> None:
    made = error("code", "what was wrong") if error is RefusedError else error("what was wrong")
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is error
    assert str(again) == "what was wrong"
    assert vars(again) == vars(made)


def test_they_keep_their_module() -> None:
    """A queue that an older version has filled names it."""
    assert {one.__module__ for one in ALL} == {"dicomnode.errors"}
