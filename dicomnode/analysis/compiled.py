"""Loops that numpy cannot express, compiled by numba; they release Python's lock, so that threads run side by side."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import numba

_P = ParamSpec("_P")
_R = TypeVar("_R")

#: The machine code is kept beside the sources, where Python keeps its own (`__pycache__`). Where that folder cannot be
#: written numba would go to the user's home folder, which is not ours: then each process compiles for itself (10 s).
_KEEP = os.access(Path(__file__).parent, os.W_OK)


def compiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Compile at the first call; the arguments' types decide, so that callers should always pass the same ones."""
    return numba.njit(nogil=True, cache=_KEEP)(function)
