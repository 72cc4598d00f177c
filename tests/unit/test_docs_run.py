"""What the documentation asks a reader to type: commands run, configuration loads.

A line of a block of commands runs here, in a folder with a small node, unless a test elsewhere runs it (`ELSEWHERE`) or
nothing here can (`NOT_HERE`, with the reason). `tests/acceptance/test_docs_live.py` runs pages that need a real PACS.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import typer
from pynetdicom import AE, AllStoragePresentationContexts
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from dicomnode import config
from dicomnode.cli import app as node_app
from dicomnode.config import Config
from tests.conftest import ROOT
from tests.helpers.doc_blocks import LANGUAGES, Block, blocks_of, calls_in, inline_of, lines_of, pages, parse
from tests.helpers.ports import free_port
from tests.helpers.small_node import SmallNode
from training.cli.commands import app as training_app
from training.data import import_columns
from training.evaluation import bar
from training.models import encoder_arm
from training.run.settings import load as load_run

ROOTS = {"dicomnode": typer.main.get_command(node_app), "training": typer.main.get_command(training_app)}
BLOCKS = [block for page in pages() for block in blocks_of(page)]
COMMANDS = [block for block in BLOCKS if block.language == "sh"]
FRAGMENTS = [block for block in BLOCKS if block.language == "toml"]
#: Pages of which another test runs every block.
LIVE = {"docs/admin/first-day-orthanc.md": "tests/acceptance/test_docs_live.py"}
#: How a line begins, and the test that runs this command.
ELSEWHERE = {
    "make demo": "tests/acceptance/test_demo.py",
    "dicomnode jobs accept": "tests/acceptance/test_corrections.py",
    "dicomnode registry import-outcomes": "tests/acceptance/test_training_loop.py",
    "dicomnode registry export": "tests/acceptance/test_training_loop.py",
    "training cohort": "tests/unit/training/data/test_cohort.py",
    "training run": "tests/acceptance/test_training_loop.py",
    "training export-run": "tests/unit/training/report/test_exports.py",
    "training report": "tests/unit/training/cli/test_commands.py",
    "training compare": "tests/acceptance/test_training_loop.py",
    "training promote": "tests/acceptance/test_training_loop.py",
    "training rollback": "tests/acceptance/test_training_loop.py",
    "training import": "tests/unit/training/cli/test_commands.py",
    "training evaluate": "tests/acceptance/test_site_validation.py",
    "training recalibrate": "tests/acceptance/test_site_validation.py",
    "dicomnode weights fetch": "tests/unit/models/test_lungmask_weights.py",
    "dicomnode weights install": "tests/unit/models/test_lungmask_weights.py",
}
#: How a line begins, and why nothing here can run it.
NOT_HERE = {
    "make test": "it is what runs this test",
    "make check": "it installs hooks into the clone",
    "sha256sum dicomnode-*.whl": "needs a wheel, which tests/acceptance/test_wheel.py builds",
    "sha256sum --check dicomnode.sha256": "the same",
    "python -m pip check": "of the environment it is installed in, not of this one",
    "python -m tests.benchmarks": "hours: its figures are on the page",
    "training synthetic --patients 1200": "an hour: its figures are on the page",
    "training synthetic --patients 600": "the same",
    "training run docs/evidence": "hours: its figures are on the page",
    "dicomnode echo DCM4CHEE@": "needs a dcm4chee",
    "make man": "tests/unit/cli/test_manual.py makes the pages",
    "make completion": "the same makes the scripts",
    "make site": "tests/unit/test_site.py builds it",
    "deploy/install.sh": "tests/acceptance/test_install.py runs it, in roots of its own",
    "sh install.sh --offline": "the same",
    "make offline": "the same makes a small archive; a whole one takes minutes and 640 MB",
    "docker build": "there is no registry of images here: tests/unit/test_deploy.py holds the file against the code",
}
#: What a page's commands need beside a small node.
PASSWORD = "correct horse battery staple\n"
TYPED = "\n".join(f'{name}() {{ command {name} "$@" < "$HOME/password"; }}' for name in ROOTS)
#: The study of the page on corrections.
CORRECTED = "1.2.840.113619.2.55.3.4"


def reason_not_to_run(line: str) -> str | None:
    """Return where else a line runs, or why it cannot; None: it runs here."""
    for table in (NOT_HERE, ELSEWHERE):
        for begin, why in table.items():
            if line.startswith(begin):
                return why
    return None


def ids(block: Block) -> str:
    return block.place


# Commands


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_what_it_is(page: Path) -> None:
    assert {block.language for block in blocks_of(page)} <= LANGUAGES


@pytest.mark.parametrize("block", COMMANDS, ids=ids)
def test_every_command_of_a_block_parses(block: Block) -> None:
    for line in lines_of(block.text):
        for words in calls_in(line):
            parse(ROOTS[words[0]], words)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_the_text_has_options_that_exist(page: Path) -> None:
    """In a sentence a command is often named without its arguments."""
    for piece in inline_of(page):
        if not re.match(r"(\.venv/bin/)?(dicomnode|training) [a-z]", piece):
            continue
        plain = re.sub(r"[\[\]]", "", piece)
        for words in calls_in(plain):
            parse(ROOTS[words[0]], words, whole=False)


def test_what_does_not_parse_is_found() -> None:
    for line in (
        "dicomnode jobs lst", "dicomnode jobs list --stote failed", "dicomnode echo", "dicomnode check more",
        "dicomnode", "training run", "dicomnode console user add anna",
    ):  # fmt: skip
        (words,) = calls_in(line)
        with pytest.raises(ValueError, match=words[0]):
            parse(ROOTS[words[0]], words)
    for line in (
        "dicomnode jobs list --state failed > out.txt",
        "dicomnode --version",
        "cd x && dicomnode check -c a.toml",
    ):
        parse(ROOTS["dicomnode"], next(calls_in(line)))


def test_every_reason_not_to_run_a_line_is_needed() -> None:
    lines = [line for block in COMMANDS if block.page not in LIVE for line in lines_of(block.text)]
    for table in (NOT_HERE, ELSEWHERE):
        unused = [begin for begin in table if not any(line.startswith(begin) for line in lines)]
        assert not unused, f"no page has these lines: {unused}"


@pytest.mark.parametrize(("begin", "path"), ELSEWHERE.items(), ids=list(ELSEWHERE))
def test_the_other_test_runs_the_command(begin: str, path: str) -> None:
    text = (ROOT / path).read_text("utf-8")
    words = begin.split()[1:]
    assert all(f'"{word}"' in text or f" {word} " in text or f"({word}," in text for word in words), (
        f"{path}: no {begin}"
    )


class Stage:
    """A folder with a small node and what else pages take for granted; paths from the root lie below it."""

    def __init__(self, folder: Path, pacs: int) -> None:
        self.folder = folder / "site"
        bundle = 'bundle = "demo-synthetic"\nallow_demo_bundles = true\n'
        table = f'[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {pacs}\n'
        self.node = SmallNode(self.folder, more=f"{bundle}[node]\nport = {free_port()}\n{table}")
        self._corrected()
        self.node.catalog.close()
        self.node.config.storage.state.chmod(0o700)
        (self.folder / "password").write_text(PASSWORD * 2, "utf-8")
        shutil.copytree(ROOT / "weights" / "demo-synthetic", self.folder / "weights" / "demo-synthetic")
        for name in ("backup", "safe", "srv/dicomnode", "etc/dicomnode"):
            (self.folder / "root" / name).mkdir(parents=True)

    def _corrected(self) -> None:
        """A study one of whose objects has come again with other content."""
        first = replace(self.node.store(100), study_uid=CORRECTED, series_uid=f"{CORRECTED}.1")
        other = self.node.spool.store(CORRECTED, f"{CORRECTED}.1", first.sop_instance_uid, b"meta", b"other content")
        self.node.catalog.record(first)
        self.node.catalog.note_conflict(replace(first, path=str(other.path), sha256=other.sha256))

    def run(self, text: str) -> subprocess.CompletedProcess[str]:
        """Run lines in bash, to the first that fails; each command finds a password at its standard input."""
        here = re.sub(r"(?<![\w.:/])/(?=(backup|safe|srv|etc|media)\b)", f"{self.folder}/root/", text)
        paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
        environment = {**os.environ, "PATH": ":".join(paths), "PYTHONPATH": str(ROOT), "HOME": str(self.folder)}
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{TYPED}\n{here}"],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


PAGES_THAT_RUN = sorted(
    {
        block.page
        for block in COMMANDS
        if block.page not in LIVE and any(reason_not_to_run(line) is None for line in lines_of(block.text))
    }
)


@pytest.fixture(scope="module")
def pacs() -> Iterator[int]:
    """The port of a PACS that takes everything."""
    port = free_port()
    entity = AE(ae_title="PACS")
    entity.supported_contexts = AllStoragePresentationContexts
    entity.add_supported_context(Verification)
    server = entity.start_server(("127.0.0.1", port), block=False)
    yield port
    server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES_THAT_RUN)
def test_the_commands_of_a_page_run(page: str, pacs: int, tmp_path: Path) -> None:
    stage = Stage(tmp_path, pacs)
    prepare(page, stage)
    for block in COMMANDS:
        lines = [line for line in lines_of(block.text) if reason_not_to_run(line) is None]
        if block.page == page and lines:
            done = stage.run("\n".join(lines))
            assert done.returncode == 0, f"{block.place}: {done.args[-1]}\n{done.stdout}\n{done.stderr}"
            assert "Traceback" not in done.stderr


def prepare(page: str, stage: Stage) -> None:
    """Make what a page takes for granted beyond a node."""
    if page == "docs/admin/verify-installation.md":
        # The bundle that is signed there is the only one of that site.
        (stage.folder / "weights" / "demo-synthetic").rename(stage.folder / "weights" / "ssc-ild-risk-1")
        text = (stage.folder / "ae_config.toml").read_text("utf-8")
        (stage.folder / "ae_config.toml").write_text(text.replace('"demo-synthetic"', '"ssc-ild-risk-1"'), "utf-8")


# Configuration

#: Base: all the keys of the example, so that a fragment may refer to what stands there; TLS and monitoring are on.
BASE: dict[str, Any] = tomllib.loads((ROOT / "ae_config.toml").read_text("utf-8"))
BASE["tls"] = {"certificate": "tls/node.crt", "key": "tls/node.key", "ca_file": "tls/ca.crt"}
BASE["node"]["tls_port"] = 2762
BASE["monitoring"]["port"] = 9108


def merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Return a table with another's keys over it; a list of tables is replaced, since names in it are unique."""
    out = dict(base)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if both else value
    return out


def load_over_example(fragment: str, folder: Path) -> Config:
    path = folder / "ae_config.toml"
    path.write_text(tomli_w.dumps(merged(BASE, tomllib.loads(fragment))), "utf-8")
    return config.load(path)


@pytest.mark.parametrize("block", [b for b in FRAGMENTS if "file" not in b.notes], ids=ids)
def test_every_fragment_of_the_configuration_loads(block: Block, tmp_path: Path) -> None:
    load_over_example(block.text, tmp_path)


def test_fragments_of_other_files_load_as_these(tmp_path: Path) -> None:
    """`gate.toml`, `columns.toml` and `run.toml` by the readers that training has for them."""
    readers = {
        "gate.toml": lambda path: bar.load(path.parent),
        "run.toml": lambda path: encoder_arm.make(load_run(path).arm_tables["encoder"]),
        "columns.toml": lambda path: import_columns.read_asked(path, {}, "", "roi"),
    }
    found = {block.notes["file"]: block for block in FRAGMENTS if "file" in block.notes}
    assert found.keys() == readers.keys()
    for name, block in found.items():
        (tmp_path / name).write_text(block.text, "utf-8")
        readers[name](tmp_path / name)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_setting_given_in_the_text_has_a_value_that_is_taken(page: Path, tmp_path: Path) -> None:
    tables = {name for name, value in BASE.items() if isinstance(value, dict)} | {"priors", "worklist", "ups", "mpps"}
    for piece in inline_of(page):
        given = re.fullmatch(r"([a-z_]+)((?:\.[a-z_]+)+) = (.+)", piece)
        if given and given[1] in tables and not re.search(r"…|\bN\b", given[3]):
            fragment = f"{given[1]}{given[2]} = {given[3]}"
            needs = PEER if given[1] in ("priors", "worklist", "ups", "mpps") else ""
            load_over_example(needs.replace("TABLE", given[1]) + fragment, tmp_path)


PEER = 'TABLE.ae_title = "A"\nTABLE.host = "h"\nTABLE.port = 104\n'


def examples() -> Iterator[tuple[str, str]]:
    """Yield each commented example of `ae_config.toml`, by its first line and uncommented, with nothing left out."""
    lines = (ROOT / "ae_config.toml").read_text("utf-8").splitlines()
    for number, line in enumerate(lines):
        if not (header := re.match(r"# \[\[?(\w+)\]\]?(\s+#.*)?$", line)):
            continue
        inner = re.compile(rf"# (?!\[)|# \[{header[1]}\.")  # a table below it belongs to it
        end = number + 1
        while end < len(lines) and inner.match(lines[end]) and not lines[end].startswith("# End of"):
            end += 1
        yield f"{number + 1} {line[2:].partition('#')[0].strip()}", "\n".join(one[2:] for one in lines[number:end])


EXAMPLES = dict(examples())


def test_all_examples_are_found() -> None:
    text = (ROOT / "ae_config.toml").read_text("utf-8")
    assert len(EXAMPLES) == len(re.findall(r"^# \[\[?\w+\]\]?(?:\s+#.*)?$", text, re.MULTILINE)) > 12


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_commented_example_loads_as_it_stands(name: str, tmp_path: Path) -> None:
    """Uncommented, in place: with the file's other tables before it, as a reader has them."""
    profiles = "\n".join(text for other, text in EXAMPLES.items() if "[[profile]]" in other)
    # Rules name a profile: that of the examples before them.
    load_over_example(f"{profiles}\n{EXAMPLES[name]}" if "[[route]]" in name else EXAMPLES[name], tmp_path)


def commented_keys() -> Iterator[tuple[str, str]]:
    """Yield each commented key of a table that is in use, by line and name, with its table's header before it."""
    header, active = "", True
    for number, line in enumerate((ROOT / "ae_config.toml").read_text("utf-8").splitlines()):
        if found := re.match(r"(# )?(\[\[?[\w.]+\]\]?)(\s+#.*)?$", line):
            header, active = found[2], not found[1]
        elif active and (key := re.match(r"# (\w+) = ", line)):
            yield f"{number + 1} {header} {key[1]}", f"{header}\n{line[2:]}"


KEYS = dict(commented_keys())
LUNGMASK = 'segmenter = "lungmask"\nlungmask_weights = "R231"\n'
#: What else a key of the example asks for; of a list of tables, what makes one of it.
NEEDS = {
    "[[node.callers]]": 'ae_title = "CT1"\naddress = "127.0.0.0/8"',
    "[[destination]]": 'name = "pacs"\nae_title = "A"\nhost = "h"\nport = 104',
    "lungmask_sha256": 'segmenter = "lungmask"\nlungmask_weights = "mine.pth"',
    "lungmask_lobe_weights": f'{LUNGMASK}lungmask_lobe_sha256 = "{"0" * 64}"',
    "lungmask_lobe_sha256": f'{LUNGMASK}lungmask_lobe_weights = "lobes.pth"',
    "key": 'certificate = "console.pem"',
    "certificate": 'key = "console.key"',
}


@pytest.mark.parametrize("name", KEYS)
def test_each_commented_key_loads_as_it_stands(name: str, tmp_path: Path) -> None:
    _, header, key = name.split(" ")
    more = [
        NEEDS[one]
        for one in (header, key)
        if one in NEEDS and not (one in ("key", "certificate") and "console" not in header)
    ]
    load_over_example("\n".join([KEYS[name], *more]), tmp_path)


def test_all_examples_at_once_load(tmp_path: Path) -> None:
    """Every line of an example uncommented, and nothing else changed."""
    text = (ROOT / "ae_config.toml").read_text("utf-8")
    for name, example in EXAMPLES.items():
        number = int(name.partition(" ")[0]) - 1
        lines = text.splitlines()
        lines[number : number + len(example.splitlines())] = example.splitlines()
        text = "\n".join(lines) + "\n"
    path = tmp_path / "ae_config.toml"
    path.write_text(text, "utf-8")
    loaded = config.load(path)
    assert len(loaded.destination) == text.count("\n[[destination]]") > 3
    assert loaded.priors and loaded.worklist and loaded.ups and loaded.mpps and loaded.tls
