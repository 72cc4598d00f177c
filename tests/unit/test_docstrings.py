"""Who calls a function with an array must not have to read it: the docstring says which axis is which, and the unit."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.conftest import ROOT

PACKAGES = ("dicomnode/analysis", "training")
ARRAYS = {"NDArray", "ndarray", "Tensor"}
#: The record and the array types that other modules import from `analysis.arrays`.
SHARED = {"Volume", "HuArray", "Mask", "Labels"}
#: Axes as «(z, y, x)», «(scans,)», «(..., intervals)», or a shape that follows another argument's.
SHAPE = re.compile(r"\((?:\w+|\.{3}|[\w ]+ \+ 1),[^()]*\)|\bshape\b|\bshapes\b")
#: What the numbers are: a unit, a range, or that they are labels, counts, flags or the like.
MEANING = re.compile(
    r"\bHU\b|Hounsfield|\bmm3?\b|\b[Mm]illimet|\bml\b|\byears?\b|\bdegrees?\b|\bin voxels\b|\b[0-9] to [0-9]|"
    r"\b(?:0 or 1|0 below|0 background|whether|true|masks?|labels?|labelled|lobes|numbers?|counts?|how many|how often|"
    r"index|indices|weights?|grey levels|levels|risks?|probabilit\w+|hazards?|logits?|survival|likelihood|features?|"
    r"percentile|RGB|correlation|metric)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Function:
    """A public function that takes or gives arrays, and all that is said of it."""

    place: str
    docstring: str


def _functions(source: str, place: str) -> Iterator[Function]:
    tree = ast.parse(source)
    # Module-level names for array types: `Labels = NDArray[np.uint8]`.
    aliases = {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign) and _names(node.value) & ARRAYS
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node, owner in _public(tree):
        if any(_names(a) & (ARRAYS | SHARED | aliases) for a in _annotations(node)):
            said = [ast.get_docstring(one) or "" for one in (node, owner) if one is not None]
            yield Function(f"{place}:{node.lineno} {node.name}", "\n".join(said))


def _public(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef, ast.ClassDef | None]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node, None
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and (not inner.name.startswith("_") or inner.name == "__call__"):
                    yield inner, node


def _raised(node: ast.FunctionDef) -> set[str]:
    """The names of the exceptions that the function itself raises, not those of functions within it."""
    found: set[str] = set()
    todo: list[ast.AST] = list(node.body)
    while todo:
        one = todo.pop()
        if isinstance(one, ast.Raise) and isinstance(one.exc, ast.Call) and isinstance(one.exc.func, ast.Name):
            found.add(one.exc.func.id)
        if not isinstance(one, ast.FunctionDef | ast.Lambda):
            todo.extend(ast.iter_child_nodes(one))
    return found


def _annotations(node: ast.FunctionDef) -> list[ast.expr]:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    found = [a.annotation for a in arguments if a.annotation is not None]
    return found if node.returns is None else [*found, node.returns]


def _names(node: ast.AST) -> set[str]:
    """The names in an annotation, also where it is written as text."""
    names: set[str] = set()
    for one in ast.walk(node):
        if isinstance(one, ast.Name):
            names.add(one.id)
        elif isinstance(one, ast.Attribute):
            names.add(one.attr)
        elif isinstance(one, ast.Constant) and isinstance(one.value, str):
            names |= set(re.findall(r"\w+", one.value))
    return names


def _all() -> list[Function]:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [f for path in paths for f in _functions(path.read_text("utf-8"), str(path.relative_to(ROOT)))]


def test_there_are_functions_to_look_at() -> None:
    assert len(_all()) > 100


def test_every_array_has_its_axes_in_the_docstring() -> None:
    assert [f.place for f in _all() if not SHAPE.search(f.docstring)] == []


def test_every_array_has_its_meaning_in_the_docstring() -> None:
    assert [f.place for f in _all() if not MEANING.search(f.docstring)] == []


def test_what_a_function_raises_stands_in_its_docstring() -> None:
    """Of commands the reader is whoever types them: their errors are messages."""
    silent = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "cli" in path.parts:
                continue
            for node, _ in _public(ast.parse(path.read_text("utf-8"))):
                said = ast.get_docstring(node) or ""
                silent += [f"{path.name}:{node.lineno} {node.name}: {e}" for e in _raised(node) if e not in said]
    assert silent == []


@pytest.mark.parametrize(
    ("docstring", "says"),
    [
        ("Average blocks: (z, y, x), HU.", True),
        ("Return the risk, (scans,), 0 to 1.", True),
        ("Return an array of the same shape.", True),
        ("Return the largest component (see `label`).", False),
        ("Average blocks of about 2 mm.", False),
    ],
)
def test_what_counts_as_axes(docstring: str, says: bool) -> None:
    assert bool(SHAPE.search(docstring)) == says


def test_what_counts_as_meaning() -> None:
    assert MEANING.search("Average blocks: (z, y, x), HU.")
    assert MEANING.search("Return the mask (z, y, x).")
    assert not MEANING.search("Turn an image (row, column) to (y, x).")


def test_a_function_whose_docstring_is_silent_is_found() -> None:
    source = (
        "Floats = NDArray[np.float64]\n"
        'def loud(a: Floats) -> None:\n    """(scans,), 0 to 1."""\n'
        'def quiet(a: "Floats | None") -> None:\n    """Do it."""\n'
        "def _private(a: Floats) -> None: ...\n"
        "def other(a: Path) -> None: ...\n"
    )
    found = list(_functions(source, "x.py"))
    assert [f.place for f in found if not SHAPE.search(f.docstring)] == ["x.py:4 quiet"]
    assert len(found) == 2
