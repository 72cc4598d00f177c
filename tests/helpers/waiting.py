"""Waiting for a condition: the one way in which tests wait."""

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")
#: Time-outs are those of an idle machine; one that does other things too gets so many times as long.
PATIENCE = 4
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.4


def until(what: str, look: Callable[[], T], seconds: float = 120) -> T:
    """Wait for a condition: the first true value that `look` gives. `seconds` are those of an idle machine."""
    patience_s = PATIENCE * seconds
    looked = time.monotonic()
    deadline = looked + patience_s
    pause = _FIRST_PAUSE_S
    while not (value := look()):
        now = time.monotonic()
        if now > deadline:
            pytest.fail(f"after {patience_s:g} s: not {what}")
        # A look that costs something is not worth more than what it waits for.
        time.sleep(max(pause, now - looked))
        pause = min(1.5 * pause, _LONGEST_PAUSE_S)
        looked = time.monotonic()
    return value
