"""What each library costs: disk, time to import, memory. Writes docs/evidence/dependencies.md.

    python -m tests.benchmarks.dependencies [--out docs/evidence/dependencies.md]

Time is the processor's, so that what else runs on the machine counts little; each import in a process of its own, the
least of a few tries. Disk is what the package's files take as installed, with compiled Python.
"""

import argparse
import json
import platform
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import Distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers.prerequisites import ROOT
from tests.helpers.runtime_packages import closure

#: Packages whose import has another name than their top folder's, or several.
_IMPORTS = {
    "argon2-cffi": "argon2",
    "fonttools": "fontTools.ttLib",
    "lungmask": "lungmask.mask",
    "matplotlib": "matplotlib.figure",
    "noto-cjk-sans-jp-regular": "noto_cjk_sans_jp_regular",
    "opentelemetry-exporter-otlp-proto-http": "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry-sdk": "opentelemetry.sdk.trace",
    "pillow": "PIL.Image",
    "prometheus-client": "prometheus_client",
    "pyarrow": "pyarrow.parquet",
    "pyjpegls": "jpeg_ls",
    "pylibjpeg-openjpeg": "openjpeg",
    "pyradiomics": "radiomics",
    "python-gdcm": "gdcm",
    "safetensors": "safetensors.numpy",
    "scikit-learn": "sklearn.ensemble",
    "scipy": "scipy.ndimage",
    "simpleitk": "SimpleITK",
    "tomli-w": "tomli_w",
    "torchvision": "dicomnode.analysis.risk.backbones",
}
#: What a process of the node imports before it does anything.
PROCESSES = {
    "`dicomnode --help`": "dicomnode.cli",
    "a receiver": "dicomnode.service.processes",
    "the supervisor": "dicomnode.service.supervisor",
    "the console": "dicomnode.console.site",
    "a worker, before its first study": "dicomnode.workflows.runtime, dicomnode.workflows.worker",
    "the process that analyses": "dicomnode.analysis.pipeline, dicomnode.models.build",
    "`training run`": "training.run.run",
}
_MEASURE = """
import json, resource, sys
def used():
    u = resource.getrusage(resource.RUSAGE_SELF)
    return u.ru_utime + u.ru_stime, int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6
before = used()
import {what}
after = used()
print(json.dumps([b - a for a, b in zip(before, after)]))
"""
_HEAD = """\
# What each library costs

Made by `python -m tests.benchmarks.dependencies`, {date}: Python {python}, {machine}, torch {torch}. Disk: files as
installed, with compiled Python. Import: processor seconds and resident memory in a process of its own (least of
{tries}), with all that the library itself loads. «With it goes» is what would leave the disk with it: the library, and
those that nothing else needs.

## Groups
| installed by | packages | disk, MB |
|---|---|---|
{groups}

`make install` brings node and `training`, since the README's commands need both. `deploy/install.sh` and the image
bring the node alone: no hospital's node needs the training libraries unless it retrains by itself (`--training`).
`monitoring.traces` needs `--tracing`. Where one of these is called for and missing, the message names the extra.

## Libraries that pyproject.toml names
| library | of | disk, MB | with it goes, MB | import, s | memory, MB |
|---|---|---|---|---|---|
{libraries}

## Processes, as they start
| process | import, s | memory, MB |
|---|---|---|
{processes}

## What was looked at, and stays
- **torch** is a third of the disk. The model bundles' image encoder and lungmask run on it; a node with
  `bundle = ""` and the classical segmenter never loads it, but could not take up a bundle either. Its CUDA build
  takes 3 GB more: `deploy/environment.sh` says so where that was not asked for. sympy and networkx (90 MB) are torch's
  own; nothing here imports them.
- **SimpleITK** is pyradiomics' only input, and lungmask's. **llvmlite** is numba's, which compiles the loops that
  made the analysis slow.
- **scikit-image**, imageio and tifffile are lungmask's.
- **typst** sets the PDF; **gdcm**, **openjpeg** and **jpegls** each decode images that the others do not.
- A receiver loads none of these (`tests/unit/test_imports.py`).
"""


def groups() -> dict[str, list[Requirement]]:
    """What pyproject.toml asks for, by who installs it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = {"node": project["dependencies"], "training": extras["training"], "tracing": extras["tracing"]}
    return {group: [Requirement(one) for one in several] for group, several in named.items()}


def size_mb(package: Distribution) -> float:
    """What a package's files take on the disk, in MB of a million bytes."""
    found = [Path(str(package.locate_file(file))) for file in package.files or ()]
    compiled = [one for path in found if path.suffix == ".py" for one in path.parent.glob(f"__pycache__/{path.stem}.*")]
    return sum(path.stat().st_size for path in {*found, *compiled} if path.is_file()) / 1e6


def cost(imported: str, tries: int) -> tuple[float, float]:
    """Seconds of the processor and MB of memory that an import takes: the least of a few tries."""
    code = _MEASURE.format(what=imported)
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(tries)
    ]
    found = [json.loads(run.stdout.splitlines()[-1]) for run in runs]
    return min(seconds for seconds, _ in found), min(memory for _, memory in found)


def total_mb(packages: Sequence[Distribution]) -> float:
    """What several packages take."""
    return sum(map(size_mb, packages))


def page(tries: int) -> str:
    """Measure everything; the page's text."""
    named = groups()
    whole = {name: closure(named["node"] + (named[name] if name != "node" else [])) for name in named}
    rows = []
    for name, packages in whole.items():
        own = packages if name == "node" else {k: v for k, v in packages.items() if k not in whole["node"]}
        rows.append(f"| {name} | {len(own)} | {total_mb(list(own.values())):.0f} |")
    libraries = []
    for group, several in named.items():
        for one in several:
            others = [r for r in named["node"] + (several if group != "node" else []) if r is not one]
            stays = closure(others)
            goes = [v for k, v in whole[group].items() if k not in stays]
            name = canonicalize_name(one.name)
            seconds, memory = cost(_IMPORTS.get(name, name.replace("-", "_")), tries)
            own_mb = size_mb(whole[group][name])
            libraries.append(
                (
                    total_mb(goes),
                    f"| {name} | {group} | {own_mb:.0f} | {total_mb(goes):.0f} | {seconds:.2f} | {memory:.0f} |",
                )
            )
            print(libraries[-1][1], flush=True)
    processes = []
    for what, imported in PROCESSES.items():
        seconds, memory = cost(imported, tries)
        processes.append(f"| {what} | {seconds:.2f} | {memory:.0f} |")
    return _HEAD.format(
        tries=tries,
        date=datetime.now(UTC).date(),
        python=platform.python_version(),
        machine=platform.machine(),
        torch=whole["node"]["torch"].version,
        groups="\n".join(rows),
        libraries="\n".join(text for _, text in sorted(libraries, key=lambda one: -one[0])),
        processes="\n".join(processes),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(description="what each library costs")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "evidence" / "dependencies.md")
    parser.add_argument("--tries", type=int, default=3, help="imports of each, of which the least counts")
    args = parser.parse_args(arguments)
    args.out.write_text(page(args.tries), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
