"""What a process must not load, whatever it imports by the way."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "torchvision", "SimpleITK", "radiomics", "lungmask", "highdicom", "dbos", "scipy", "numba")
#: What few nodes need, and costs each start of a receiver a tenth of a second.
SELDOM = ("httpx", "psycopg", "rich", "apscheduler", "alembic")


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("dicomnode.service.processes", HEAVY + SELDOM),  # the receiving process
        # the supervisor, also of a node that starts for the first time
        ("dicomnode.service.supervisor, dicomnode.models.segmenters", tuple(m for m in HEAVY if m != "dbos")),
        ("dicomnode.demo.run", tuple(m for m in HEAVY if m != "dbos")),  # `dicomnode demo` beside its node
        (  # a worker, which has its analyst analyse, until its first study is encoded
            "dicomnode.workflows.runtime, dicomnode.workflows.worker, dicomnode.workflows.analyst",
            (*(m for m in HEAVY if m != "dbos"), "matplotlib"),
        ),
        ("dicomnode.service.child", (*HEAVY, *SELDOM, "pydicom", "pydantic")),  # `serve` until it has its receiver
        ("dicomnode.cli", (*HEAVY, "pydicom", "pynetdicom", "sqlalchemy")),  # `dicomnode --help`
    ],
)
def test_stays_light(module: str, forbidden: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*(m for m in {forbidden!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
