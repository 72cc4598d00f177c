"""`python -m tests.benchmarks.training`: how fast training is, written to docs/evidence/benchmarks-training.md.

Features and preparation on a phantom with lungs of natural size; training steps (forward, backward, optimiser) of each
backbone on the CPU at the small size, and on a GPU, where torch sees one, at both; beside each the loading of the same
prepared scans alone. Ways that are compared (float32 and bfloat16, loading and step) take turns in one process, the
fastest of each counts.
"""

import argparse
import datetime
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dicomnode.analysis.measures import quantify
from dicomnode.analysis.phantom.phantom import Disease, chest
from dicomnode.analysis.radiomics import extract
from dicomnode.analysis.risk.backbones import BACKBONES
from dicomnode.analysis.risk.preprocess import Spec, prepare
from tests.benchmarks.measured import ROOT
from training.data.outcomes import Outcomes
from training.models.deep import fit
from training.models.deep.distributed import alone
from training.models.deep.job import FitJob
from training.models.deep.prepared_slices import Prepared, batches
from training.models.deep.settings import FULL_SPEC, DeepSettings

HEAD = """# Benchmarks of training

Made by `make bench-training`. Scans a second, the fastest of {repeats} turns each.

{machine}

## Features
One scan: a phantom of {shape} voxels (z, y, x) of {spacing} mm, lungs of {litres:.1f} l.

| what | scans/s | s a scan |
|---|---|---|
{features}

## Training steps
A step is forward, backward and optimiser on one batch, augmentation included. «Loading alone» reads the batch's prepared scans
from disk (in the system's cache) as the training does, which does so while the step before is computed: where it is faster than
the step, it is not the limit.

| device, precision | backbone | input (slices, height, width) | scans a step | scans/s | loading alone, scans/s | loading / step |
|---|---|---|---|---|---|---|
{steps}

`precision = "auto"` is bfloat16 on CUDA and on a CPU with instructions for it (avx512_bf16, amx_bf16), else float32.
"""  # noqa: E501 (a paragraph of Markdown is one line)
SMALL = Spec(spacing_mm=4.0, canvas=(64, 80), slices=8)
SHAPE, SPACING = (70, 110, 130), (4.0, 3.0, 3.0)


@dataclass(frozen=True)
class Load:
    """Scans of one shape, how many make a step, and on which devices."""

    spec: Spec
    scans: int
    devices: tuple[str, ...]


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "evidence" / "benchmarks-training.md")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    machine = _machine()
    features = [_shown([name, f"{1 / seconds:.3g}", f"{seconds:.3g}"]) for name, seconds in _features(chosen.repeats)]
    steps = []
    with tempfile.TemporaryDirectory() as folder:
        gpu = ("cuda",) if torch.cuda.is_available() else ()
        for load in (Load(SMALL, 4, ("cpu", *gpu)), *(Load(FULL_SPEC, 16, (device,)) for device in gpu)):
            for backbone in BACKBONES:
                steps += [_shown(row) for row in _steps(Path(folder), load, backbone, chosen.repeats)]
    litres = float((_phantom().labels > 0).sum()) * _phantom().volume.voxel_ml / 1000
    page = HEAD.format(
        repeats=chosen.repeats,
        machine=machine,
        shape=" x ".join(map(str, SHAPE)),
        spacing=" x ".join(f"{v:g}" for v in SPACING),
        litres=litres,
        features="\n".join(features),
        steps="\n".join(steps),
    )
    chosen.out.write_text(page, encoding="utf-8")


def _shown(cells: list[str]) -> str:
    line = f"| {' | '.join(cells)} |"
    print(line, flush=True)
    return line


def _phantom():
    return chest(1, shape=SHAPE, spacing_mm=SPACING, disease=Disease.of_severity(0.4))


def _features(repeats: int) -> list[tuple[str, float]]:
    """Seconds a scan of each kind of feature."""
    phantom = _phantom()
    volume, labels = phantom.volume, phantom.labels
    ways: Mapping[str, Callable[[], object]] = {
        "quantities of all regions": lambda: quantify.by_region(volume, labels),
        "radiomics of lungs, right and left at 1 mm (3 x 107)": lambda: extract.by_region(
            volume, labels, extract.DEFAULT_SETTINGS
        ),
        "preparation for the networks, full size": lambda: prepare(volume, labels, FULL_SPEC),
        "preparation for the networks, small": lambda: prepare(volume, labels, SMALL),
    }
    with tempfile.TemporaryDirectory() as folder:
        job = _job(Path(folder), Load(FULL_SPEC, 16, ()), BACKBONES[0])
        loading = _fastest(
            {"loading of prepared scans, full size": lambda: list(batches(job.scans, np.split(job.fit, 4)))}, repeats
        )
    return [*_fastest(ways, repeats).items(), *((name, seconds / 16) for name, seconds in loading.items())]


def _fastest(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Each way once to warm up, then in turns; the fastest time of each, seconds."""
    found = dict.fromkeys(ways, float("inf"))
    for turn in range(repeats + 1):
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            if turn:
                found[name] = min(found[name], time.perf_counter() - start)
    return found


def _steps(folder: Path, load: Load, backbone: str, repeats: int) -> list[list[str]]:
    """Rows of the table for one backbone and input: each device and precision beside the loading."""
    job = _job(folder, load, backbone)
    rows = job.fit
    ways: dict[str, Callable[[], object]] = {"loading": lambda: list(batches(job.scans, [rows] * 4))}
    for device in load.devices:
        for precision in (torch.float32, torch.bfloat16):
            ways[f"{device}, {str(precision).removeprefix('torch.')}"] = _step(job, device, precision)
    found = _fastest(ways, repeats)
    loading = 4 * load.scans / found.pop("loading")
    shape = f"{load.spec.slices}, {load.spec.canvas[0]}, {load.spec.canvas[1]}"
    speeds = {name: load.scans / seconds for name, seconds in found.items()}
    return [
        [name, backbone, shape, str(load.scans), f"{speed:.3g}", f"{loading:.3g}", f"{loading / speed:.3g} x"]
        for name, speed in speeds.items()
    ]


def _job(folder: Path, load: Load, backbone: str) -> FitJob:
    """A job on noise: what a step costs does not hang on what it sees."""
    spec, rng = load.spec, np.random.default_rng(1)
    files = tuple(folder / f"{spec.slices}-{number}.npy" for number in range(load.scans))
    for file in files:
        np.save(file, rng.random((spec.slices, *spec.canvas), np.float32))
    rows = np.arange(load.scans)
    return FitJob(
        backbone=backbone,
        settings=DeepSettings(spec=spec, batch=load.scans),
        seed=1,
        scans=Prepared(files),
        prior=np.full(load.scans, -1),
        years=np.full(load.scans, np.nan),
        outcomes=Outcomes(np.linspace(0.5, 5.5, load.scans), rows % 2 == 0),
        fit=rows,
        validate=rows,
    )


def _step(job: FitJob, device: str, precision: torch.dtype) -> Callable[[], None]:
    """One step on scans that are already in memory."""
    ranks = alone(device)
    net = ranks.wrapped(fit.start(job).to(memory_format=torch.channels_last))
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-5)
    slices = job.scans.read(job.fit)

    def step() -> None:
        fit.gradients(net, job, job.fit, slices, (0, 0), ranks, precision)
        optimiser.step()
        optimiser.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), platform.machine())
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    return (
        f"{datetime.datetime.now(datetime.UTC).date()}, {model}, {cores} cores, torch {torch.__version__} with "
        f"{torch.get_num_threads()} threads, {gpu}. Load average of the last minute: {load:.1f}; above {cores}, others "
        "were working on the machine, and only what stands in one row may be compared."
    )


if __name__ == "__main__":
    main()
