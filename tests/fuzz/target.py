"""What is fuzzed: a maker of cases, and what a case is given to."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from random import Random

Make = Callable[[Random], bytes]
Run = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    """One way into the node.

    Attributes:
        name: on the command line, and in the names of found cases.
        make: a case from a generator of random numbers.
        opened: holds what all its cases need (folders, a server), and gives the function that takes one case.
        expected: what that function may raise: the exceptions that its documentation names.
        share: how many of a hundred cases are this target's, where all run.
    """

    name: str
    make: Make
    opened: Callable[[], AbstractContextManager[Run]]
    expected: tuple[type[BaseException], ...] = ()
    share: float = 1.0


def plain(run: Run) -> Callable[[], AbstractContextManager[Run]]:
    """For a function that needs nothing around it."""

    @contextmanager
    def opened() -> Iterator[Run]:
        yield run

    return opened
