"""Progress bars for the commands."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn


@contextmanager
def bars(count: ProgressColumn | None = None) -> Iterator[Callable[[str, int, int | None], None]]:
    """Yield a bar for each stage, named by what it does.

    Args:
        count: how what is done is written; default: "3/8".
    """
    columns = (TextColumn("{task.description}"), BarColumn(), count or MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks = {}

        def tell(what: str, done: int, total: int | None) -> None:
            stage = what.split(",", 1)[0]
            if stage not in tasks:
                tasks[stage] = progress.add_task(what, total=total)
            progress.update(tasks[stage], description=what, completed=done, total=total)

        yield tell
