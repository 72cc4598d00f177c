"""What a restore changes in the catalogue: where files lie now, and that the processes of before are gone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Column, func

from dicomnode.store.catalog.database import Database
from dicomnode.store.catalog.tables import audit_tallies, deliveries, instances, registry_scans, workers

#: Every column that holds an absolute path; a test looks for others.
PATHS: tuple[Column[Any], ...] = (instances.c.path, deliveries.c.path, audit_tallies.c.path, registry_scans.c.volume)
#: Begins no path: what was taken from one folder is not taken again from another.
_AWAY = "\x01"


class Relocation(Database):
    """The restore's part of the catalogue."""

    def relocate(self, moves: Sequence[tuple[Path, Path]]) -> int:
        """Let all paths below a folder of before stand below the folder that it is now. Returns how many rows changed.

        Only for rows that stand as the backup has them: it may not be done twice.

        Args:
            moves: the folder of before and that of now. Of folders within each other, the innermost counts.
        """
        changed = 0
        taken: list[tuple[str, str]] = []
        steps: list[tuple[str, str]] = []
        for number, (old, new) in enumerate(sorted(moves, key=lambda move: len(move[0].parts), reverse=True)):
            steps.append((f"{old}/", f"{_AWAY}{number}/"))
            taken.append((f"{_AWAY}{number}/", f"{new}/"))
        with self._write() as connection:
            for column in PATHS:
                for before, after in (*steps, *taken):
                    chosen = func.substr(column, 1, len(before)) == before
                    moved = after + func.substr(column, len(before) + 1)
                    done = connection.execute(column.table.update().where(chosen).values({column.name: moved}))
                    changed += done.rowcount
        return changed // 2

    def retire_workers(self) -> None:
        """End every lease: the workers of before, if they still run, do so on another database."""
        with self._write() as connection:
            connection.execute(workers.update().values(state="gone", epoch=workers.c.epoch + 1))
