"""A document of numbered sections with texts and tables, as Markdown and as JSON."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DocumentTable:
    """Rows under named columns. `name` finds it again in the JSON."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        odd = [row for row in self.rows if len(row) != len(self.columns)]
        if odd:
            raise ValueError(f"table {self.name}: {len(odd[0])} cells under {len(self.columns)} columns")

    def markdown(self) -> str:
        """Return it as a table, `|` escaped."""
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)

    def records(self) -> list[dict[str, str]]:
        """Return its rows by column."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@dataclass(frozen=True)
class DocumentSection:
    """A heading with what stands under it. `number` is that of PS3.2 annex N."""

    number: str
    title: str
    blocks: tuple[str | DocumentTable, ...] = ()
    sections: tuple["DocumentSection", ...] = ()

    def walk(self) -> Iterator["DocumentSection"]:
        """Yield this section and all below it, in their order."""
        yield self
        for section in self.sections:
            yield from section.walk()

    def markdown(self, level: int = 2) -> str:
        """Return it with all below it; headings begin at `level`."""
        heading = f"{'#' * min(level, 6)} {self.number} {self.title}".replace("  ", " ")
        blocks = (block if isinstance(block, str) else block.markdown() for block in self.blocks)
        below = (section.markdown(level + 1) for section in self.sections)
        return "\n\n".join([heading, *blocks, *below])

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON knows it."""
        return {
            "number": self.number,
            "title": self.title,
            "text": [block for block in self.blocks if isinstance(block, str)],
            "tables": {block.name: block.records() for block in self.blocks if isinstance(block, DocumentTable)},
            "sections": [section.as_json() for section in self.sections],
        }


def bullets(lines: list[str] | tuple[str, ...]) -> str:
    """Return the lines as a list."""
    return "\n".join(f"- {line}" for line in lines)
