"""A target guided by coverage (atheris): for parsers whose branches a blind mutation seldom reaches."""

import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from types import FunctionType

from tests.fuzz.target import Target

_SEEDS = 200


def _instrument(function: Callable[[FunctionType], object]) -> None:
    """The product's own functions and pydicom's: all that is loaded would take minutes."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in ("dicomnode", "training", "pydicom"):
            continue
        for one in vars(module).values():
            members = vars(one).values() if isinstance(one, type) and one.__module__ == name else (one,)
            for member in members:
                if isinstance(member, FunctionType) and member.__module__ == name:
                    function(member)


def run(target: Target, seed: str, out: Path, minutes: float) -> int:
    """Fuzz until the time is up or a case fails. The libraries are loaded already: only the product is instrumented."""
    import atheris

    out.mkdir(parents=True, exist_ok=True)
    _instrument(atheris.instrument_func)
    with tempfile.TemporaryDirectory(prefix="dicomnode-fuzz-") as corpus, target.opened() as take:
        for number in range(_SEEDS):
            (Path(corpus) / f"{number}").write_bytes(target.make(Random(f"{seed}:{target.name}:{number}")))

        def one(case: bytes) -> None:
            with suppress(*target.expected):
                take(case)

        arguments = [sys.argv[0], f"-seed={abs(hash(seed)) % 1000 + 1}", f"-max_total_time={int(60 * minutes)}"]
        arguments += ["-timeout=5", f"-artifact_prefix={out}/guided-{target.name}-", corpus]
        atheris.Setup(arguments, one)
        atheris.Fuzz()
    return 0
