"""The documentation names what there is, and all of it: commands, settings, flags, states, paths, links."""

import ast
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from pydantic import BaseModel

from dicomnode import errors
from dicomnode.cli import app as node_app
from dicomnode.config import Config
from dicomnode.store.records import DeliveryState, JobState
from tests.conftest import ROOT
from training.cli.commands import app as training_app
from training.models.deep.settings import DeepSettings
from training.run.settings import RunSettings, load

README = (ROOT / "README.md").read_text("utf-8")
ABOUT_ROOT = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
PAGES = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for path in [*(ROOT / name for name in ABOUT_ROOT), *sorted((ROOT / "docs").rglob("*.md"))]
}
#: What only a node, a run or another site makes.
MADE_LATER = {"weights/current", "weights/promotions.jsonl", "weights/ssc-ild-risk-1"}
FILES = (".json", ".toml", ".py", ".md", ".csv", ".parquet", ".key")
GLOSSARY = {
    "settle", "generation", "run", "attempt", "job", "delivery", "destination", "peer", "order", "prior", "method",
    "bundle", "arm", "golden case", "seal", "gate", "quarantine", "dead letter", "lease", "spool", "catalogue",
    "registry", "pseudonym", "profile", "rule", "cohort", "flag", "fold", "ensemble", "caller", "event",
}  # fmt: skip


def section(text: str, heading: str) -> str:
    """A page's text from a heading of level 2 to the next one."""
    assert f"\n## {heading}\n" in text, f"there is no section «{heading}»"
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def code(text: str) -> list[str]:
    """The code on a page: what stands between backticks, and the lines of code blocks without their comments."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```\w*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    return inline + [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]


# The README is a page


def test_the_readme_is_one_page() -> None:
    rows = [line for line in section(README, "Where things are").splitlines() if re.match(r"\| `", line)]
    assert len(README.splitlines()) <= 120
    assert 0 < len(rows) <= 18


def test_the_readme_names_every_package() -> None:
    where = section(README, "Where things are")
    packages = [p.parent.relative_to(ROOT) for p in (ROOT / "dicomnode").glob("*/__init__.py")]
    missing = [str(p) for p in packages if not re.search(rf"`(dicomnode/)?{p.name}/?`", where)]
    assert packages and not missing


def test_every_exit_status_is_in_the_readme() -> None:
    said = {int(n) for n in re.findall(r"\b(\d) ", README[README.index("Exit statuses:") :].partition("\n\n")[0])}
    waiting, used = [errors.DicomnodeError], {0}
    while waiting:
        error = waiting.pop()
        used.add(error.exit_code)
        waiting += error.__subclasses__()
    assert said == used


# Commands


def commands(app: typer.Typer, prefix: str) -> Iterator[tuple[str, Any]]:
    """Each command that is not hidden, by its whole name."""
    waiting: list[tuple[str, Any]] = [(prefix, typer.main.get_command(app))]
    while waiting:
        name, command = waiting.pop()
        if hasattr(command, "commands"):
            waiting += [(f"{name} {inner}", found) for inner, found in command.commands.items()]
        elif not command.hidden:
            yield name, command


COMMANDS = dict(chain(commands(node_app, "dicomnode"), commands(training_app, "training")))


def test_every_command_has_a_row_in_the_readme_and_no_other() -> None:
    rows = re.findall(r"^\| (`.*?) \|", section(README, "Commands"), re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert COMMANDS.keys() - set(named) == set(), "no row"
    assert set(named) - COMMANDS.keys() == set(), "no such command"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_each_of_its_options_has_help(name: str) -> None:
    command = COMMANDS[name]
    assert len((command.help or "").split()) >= 3
    without = [p.opts[-1] for p in command.params if p.name != "help" and not (getattr(p, "help", None) or p.hidden)]
    assert not without, f"{name}: no help for {', '.join(without)}"


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_page_calls_is_there(page: str) -> None:
    groups = {name.rpartition(" ")[0] for name in COMMANDS}
    for piece in code(PAGES[page]):
        called = re.match(r"(?:\.venv/bin/)?((?:dicomnode|training)(?: [a-z][a-z-]+)+)", piece)
        if called and not piece.startswith(("dicomnode/", "training/")):
            words = called[1].split()
            names = {" ".join(words[:n]) for n in (2, 3)}
            assert names & (COMMANDS.keys() | groups | {"dicomnode receive"}), f"{page}: there is no command {piece!r}"


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_that_a_page_calls_is_there(page: str) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    called = {name for piece in code(PAGES[page]) for name in re.findall(r"(?:^|&& )make ([a-z][a-z-]*)", piece)}
    assert called <= targets, f"{page}: the Makefile has no target {', '.join(sorted(called - targets))}"


# Settings


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """The tables in the type of a key."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models_of(part)]


def settings(model: type[BaseModel], table: str = "") -> Iterator[tuple[str, str]]:
    """Each (table, key) below a model; the tables of a list or of several kinds have one name."""
    for key, field in model.model_fields.items():
        inner = models_of(field.annotation)
        yield from (x for m in inner for x in settings(m, f"{table}.{key}".strip("."))) if inner else [(table, key)]


def tables(text: str) -> dict[str, str]:
    """The text of each table of a TOML file, also of those in comments."""
    found, name = {"": ""}, ""
    for line in text.splitlines():
        if header := re.fullmatch(r"(?:# )?\[\[?([\w.]+)\]\]?(?:\s+#.*)?", line):
            name = header[1]
        found[name] = found.get(name, "") + line + "\n"
    return found


def test_every_configuration_key_is_in_the_example() -> None:
    shown, missing = tables((ROOT / "ae_config.toml").read_text("utf-8")), []
    for table, key in settings(Config):
        # Conditions stand inside their rule; a profile's selection has the keys of [analysis.selection].
        places = {table, "route" if table == "route.when" else table, table.replace("profile.", "analysis.")}
        if not any(re.search(rf"\b{key} = ", shown.get(place, "")) for place in places):
            missing.append(f"{table}.{key}")
    assert not missing


def test_every_setting_of_a_run_is_in_the_example() -> None:
    shown = tables((ROOT / "docs" / "research" / "training-run.toml").read_text("utf-8"))
    shown["deep.pretrained"] = shown["deep.pretrained.resnet18"]
    wanted = [x for x in settings(RunSettings) if x != ("", "deep")] + list(settings(DeepSettings, "deep"))
    inner = DeepSettings().model_dump(mode="json")
    # The spec's version is the code's, nobody's to set.
    wanted += [(f"deep.{name}", key) for name in ("spec", "augmentation") for key in inner[name] if key != "version"]
    lines = {name: re.findall(r"^(?:# )?(\w+) = ", text, re.MULTILINE) for name, text in shown.items()}
    missing = [x for x in wanted if ".".join(x) not in shown and x[1] not in lines.get(x[0], ())]
    assert not missing


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.toml")), ids=lambda path: path.name)
def test_every_run_of_the_docs_loads(path: Path) -> None:
    run = load(path)
    assert run.registry.resolve() in (ROOT / "registry", path.parent / "registry")
    assert run.out.resolve().is_relative_to(ROOT)


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_that_a_page_names_is_there(page: str) -> None:
    known = {".".join(x) for x in chain(settings(Config), settings(RunSettings), settings(DeepSettings, "deep"))}
    of_tables = {name.partition(".")[0] for name in known} - {""}
    for piece in code(PAGES[page]):
        named = re.match(r"([a-z_]+(?:\.[a-z_]+)+)(?= = |$)", piece)
        if named is None or named[1].partition(".")[0] not in of_tables or Path(named[1]).suffix in FILES:
            continue
        deeper = any(name.startswith(f"{named[1]}.") for name in known)
        assert named[1] in known or deeper, f"{page}: there is no setting {named[1]}"


# Flags and states


def codes_of(path: Path) -> Iterator[str]:
    """The codes of flags and refusals that a module makes: the first word given to them, or a word with hyphens."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            given = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            makes = getattr(node.func, "id", "") in ("Flag", "Reason", "RefusedError")
            yield from given[:1] if makes and node.args and isinstance(node.args[0], ast.Constant) else []
            yield from (word for word in given if re.fullmatch(r"[a-z]+(-[a-z]+)+", word) and not makes)
        elif isinstance(node, ast.Tuple):
            words = [e.value for e in node.elts if isinstance(e, ast.Constant) and isinstance(e.value, str)]
            yield from (word for word in words if re.fullmatch(r"cut-off-[a-z]+", word))


def made_codes() -> set[str]:
    paths = [*(ROOT / "dicomnode" / "analysis").rglob("*.py"), ROOT / "dicomnode" / "results" / "reader_flags.py"]
    return {word for path in paths for word in codes_of(path)}


def test_every_flag_and_refusal_is_explained_to_the_radiologist_and_no_other() -> None:
    page = PAGES["docs/radiologist/flags.md"]
    rows = re.findall(r"^\| (`[^|]+) \|", page, re.MULTILINE)
    explained = [word for row in rows for word in re.findall(r"`([^`]+)`", row)]
    assert made_codes() - set(explained) == set(), "not explained"
    assert set(explained) - made_codes() == set(), "no longer made"
    assert len(explained) == len(set(explained))


def test_every_state_has_its_row_in_the_architecture() -> None:
    page = PAGES["docs/architecture.md"]
    for heading, states in (("Jobs", get_args(JobState)), ("Deliveries", get_args(DeliveryState))):
        rows = [line for line in section(page, heading).splitlines() if line.startswith("|")]
        reached = "".join(row.split("|")[2] for row in rows)
        missing = [state for state in states if f"`{state}`" not in reached]
        assert not missing, f"{heading}: no row leads to {', '.join(missing)}"


def test_the_glossary_has_our_words() -> None:
    said = {
        word.strip()
        for term in re.findall(r"^\| \*\*(.+?)\*\*", PAGES["docs/glossary.md"], re.MULTILINE)
        for word in term.split(",")
    }
    assert GLOSSARY - said == set()


def test_every_package_says_what_it_holds() -> None:
    found = [p for top in ("dicomnode", "training") for p in (ROOT / top).rglob("__init__.py")]
    said = {p.parent: ast.get_docstring(ast.parse(p.read_text("utf-8"))) or "" for p in found}
    assert said and not [str(package) for package, words in said.items() if len(words.split()) < 4]


# Paths and links


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_a_page_names_is_there(page: str) -> None:
    bases = (ROOT, ROOT / "dicomnode", ROOT / "training", (ROOT / page).parent)
    for word in (word.strip("(),;:") for piece in code(PAGES[page]) for word in piece.split()):
        path = word.partition("::")[0]
        whole = re.fullmatch(r"(dicomnode|training|tests|docs|deploy|weights|\.ci|\.github)/[\w./-]*", path)
        part = re.fullmatch(r"[\w.-]+(/[\w.-]+)+\.(py|md)", path)
        if (whole or part) and path not in MADE_LATER:
            assert any((base / path).exists() for base in bases), f"{page}: there is no {path}"


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        assert path.exists(), f"{page}: the link {target} leads nowhere"
        if anchor:
            assert anchor in anchors(path.read_text("utf-8")), f"{page}: {target} has no such heading"


def test_every_page_is_reached_from_the_index() -> None:
    reached, waiting = set(), [ROOT / "docs" / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        links = re.findall(r"\]\(([^)#\s]+\.md)", page.read_text("utf-8"))
        waiting += [p for link in links if (p := (page.parent / link).resolve()) not in reached]
    assert {str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md") if p not in reached} == set()
