"""Progress bars for the commands."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


@contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each stage, named by what it does."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks = {}

        def tell(what: str, done: int, total: int) -> None:
            stage = what.split(",", 1)[0]
            if stage not in tasks:
                tasks[stage] = progress.add_task(what, total=total)
            progress.update(tasks[stage], description=what, completed=done)

        yield tell
