"""A hundred sites with 500 chest CTs a day each, simulated from measured stage times: who waits, and for what.

    python -m tests.benchmarks.simulate_sites [--sites 100] [--per-day 500] [--out docs/evidence/hundred-sites.md]

A study is received, settles, waits for a worker, is analysed, and is delivered. Each stage is a queue in the order of
arrival with one or more servers; nothing else is modelled (no failures, no priors, no priorities). Stage times come
from the pages of measurements in docs/evidence, sizes and times of day are assumptions, named on the page.
"""

import argparse
import heapq
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from tests.helpers.prerequisites import ROOT

_EVIDENCE = ROOT / "docs" / "evidence"
#: Share of a day's studies by hour: a department that works from 7 to 19, with an emergency room.
HOURS = (1, 1, 1, 1, 1, 1, 2, 5, 9, 10, 10, 9, 7, 8, 9, 8, 6, 4, 2, 1, 1, 1, 1, 1)
#: Slices of a thin chest CT: median, and the standard deviation of the logarithm.
SLICES, SPREAD = 300, 0.35
#: MB of a slice of 512 x 512 with its header.
SLICE_MB = 0.526
#: `settle.release_s`.
SETTLE_S = 5.0
#: Analysis of a study without lungmask: so much of it does not depend on the number of slices (preparing, radiomics).
_FIXED = 0.15
#: Four or five objects of a study by C-STORE, and the PACS's own time; assumed.
DELIVER_S = 2.0
#: lungmask on a GPU, seconds a slice. An ESTIMATE: nobody has measured it here.
GPU_SLICE_S = 0.02


@dataclass(frozen=True)
class StageTimes:
    """Measured times.

    Attributes:
        receive_slice_s: one receiver, durable on a disk, for each image.
        analysis_s: files to results of a study of `SLICES` slices on one core, classical segmenter, with radiomics.
        lungmask_slice_s: lungmask's network, seconds a slice on two cores.
        deliver_s: the objects of a study to one destination.
    """

    receive_slice_s: float
    analysis_s: float
    lungmask_slice_s: float
    deliver_s: float


def measured() -> StageTimes:
    """Read the stage times from the pages of measurements."""
    speed = (_EVIDENCE / "benchmarks.md").read_text("utf-8")
    whole = _cell(
        speed, r"\| files to results .*?\| synthetic 300x512x512 \|.*?\| ([\d.]+), [\d.]+, [\d.]+ \| [\d.]+ x"
    )
    lungs = (
        _cell(speed, r"\| lungmask's network, 20 slices \| synthetic .*?\| ([\d.]+), [\d.]+, [\d.]+ \| [\d.]+ x") / 20
    )
    receiving = (_EVIDENCE / "benchmarks-receive.md").read_text("utf-8")
    images = _cell(receiving, r"\| dicomnode, 1 receiving process \| 1 \| (\d+) \|")
    return StageTimes(1 / images, whole, lungs, DELIVER_S)


def _cell(text: str, pattern: str) -> float:
    found = re.search(pattern, text)
    assert found is not None, f"no page of measurements has {pattern}"
    return float(found[1])


@dataclass(frozen=True)
class Site:
    """A node as it is installed.

    Attributes:
        workers: analyses at a time, each with a core (with lungmask: two).
        segmenter: "classical", "lungmask", or "lungmask, GPU" (one for all workers: its slices one after another).
        receivers: receiving processes.
        destinations: deliveries at a time.
    """

    workers: int
    segmenter: str = "classical"
    receivers: int = 1
    destinations: int = 1


def arrivals(per_day: float, days: int, chance: random.Random) -> Iterator[float]:
    """Yield the seconds at which studies begin to arrive: a Poisson process whose rate follows the hour."""
    whole = sum(HOURS)
    most = max(HOURS) / whole * per_day / 3600
    now = 0.0
    while True:
        now += chance.expovariate(most)
        if now >= days * 86400:
            return
        hour = int(now // 3600) % 24
        if chance.random() < HOURS[hour] / max(HOURS):
            yield now


def through(ready: Sequence[float], needs: Sequence[float], servers: int) -> list[float]:
    """Return when each leaves a queue in the order of arrival; `ready` and `needs` belong to the same studies."""
    free = [0.0] * servers
    left = [0.0] * len(ready)
    for study in sorted(range(len(ready)), key=ready.__getitem__):
        begun = max(ready[study], heapq.heappop(free))
        left[study] = begun + needs[study]
        heapq.heappush(free, left[study])
    return left


@dataclass(frozen=True)
class Simulated:
    """What became of a site's studies. Seconds: waiting for a worker; from the last image to the last object."""

    studies: int
    waiting: list[float]
    turnaround: list[float]
    busy: float

    def at(self, percent: int) -> float:
        """A percentile of the turnaround."""
        return quantiles(self.turnaround, n=100, method="inclusive")[percent - 1]


def simulate(site: Site, per_day: float, days: int, times: StageTimes, seed: int) -> Simulated:
    """Simulate some days of one site.

    Args:
        site: the node.
        per_day: studies a day.
        days: so many of them; queues go on over night.
        times: of the stages.
        seed: of arrivals and sizes.
    """
    chance = random.Random(seed)
    came = list(arrivals(per_day, days, chance))
    slices = [max(40.0, chance.lognormvariate(0, SPREAD) * SLICES) for _ in came]
    received = through(came, [n * times.receive_slice_s for n in slices], site.receivers)
    settled = [at + SETTLE_S for at in received]
    analysis = [times.analysis_s * (_FIXED + (1 - _FIXED) * n / SLICES) for n in slices]
    if site.segmenter == "lungmask":
        analysis = [own + n * times.lungmask_slice_s for own, n in zip(analysis, slices, strict=True)]
    ready = settled
    if site.segmenter == "lungmask, GPU":
        ready = through(settled, [n * GPU_SLICE_S for n in slices], 1)
    analysed = through(ready, analysis, site.workers)
    delivered = through(analysed, [times.deliver_s] * len(came), site.destinations)
    return Simulated(
        len(came),
        [end - need - at for end, need, at in zip(analysed, analysis, ready, strict=True)],
        [end - at for end, at in zip(delivered, received, strict=True)],
        sum(analysis) / (site.workers * days * 86400),
    )


def page(sites: int, per_day: float, days: int, seed: int) -> str:
    """Simulate, and write the page."""
    times = measured()
    each = [
        Site(1),
        Site(2),
        Site(4),
        *(Site(n, "lungmask") for n in (1, 2, 4)),
        Site(1, "lungmask, GPU"),
        Site(2, "lungmask, GPU"),
    ]
    all_in_one = [Site(n, receivers=4, destinations=sites) for n in (8, 16, 24, 32)]
    all_in_one += [Site(n, "lungmask", receivers=4, destinations=sites) for n in (64, 96, 128, 160)]
    gb = per_day * SLICES * SLICE_MB / 1000
    lines = [
        f"# {sites} sites with {per_day:g} studies a day, simulated",
        "",
        "`python -m tests.benchmarks.simulate_sites`: a simulation, no measurement of so many sites. Each stage "
        "is a queue in the order "
        "of arrival. No failures, priors, priorities.",
        "",
        "| what goes in | value | from |",
        "|---|---|---|",
        f"| receiving | {1 / times.receive_slice_s:.0f} images/s, one receiver, durable | measured: "
        f"[receiving](benchmarks-receive.md) |",
        f"| settling | {SETTLE_S:g} s after the association | `settle.release_s` |",
        f"| analysis without lungmask | {times.analysis_s:g} s for {SLICES} slices of 512 x 512 on one core | "
        f"measured: [analysis](benchmarks.md) |",
        f"| lungmask's network | {times.lungmask_slice_s:.2f} s a slice on two cores | measured: the same |",
        f"| lungmask's network on a GPU | {GPU_SLICE_S:g} s a slice, one GPU | **estimated** |",
        f"| delivery | {times.deliver_s:g} s, one study at a time | assumed |",
        f"| slices | median {SLICES}, from {SLICES / 2:.0f} to {2 * SLICES:.0f} in 95 % | assumed |",
        f"| time of day | {max(HOURS) / sum(HOURS):.0%} of a day in the busiest hour, "
        f"{sum(HOURS[7:19]) / sum(HOURS):.0%} from 7 to 19 | assumed |",
        "",
        f"{days} days, seed {seed}. «Busy» is over day and night; a worker with lungmask on the CPU has two cores.",
        "",
        f"## A node at each site: {per_day:g} studies a day",
        "",
        *_table(each, per_day, days, times, seed),
        "",
        f"Received images: {gb:.0f} GB a day at each site, {7 * gb:.0f} GB with `storage.retention_days = 7`.",
        "",
        f"## One centre for all: {sites * per_day:,.0f} studies a day",
        "",
        "Workers of many machines on one PostgreSQL and one shared folder; four receivers.",
        "",
        *_table(all_in_one, sites * per_day, 1, times, seed),
        "",
        f"Received images: {sites * gb / 1000:.1f} TB a day, in the busiest hour "
        f"{sites * gb * 1000 * max(HOURS) / sum(HOURS) / 3600:.0f} MB/s: "
        f"a shared folder and network for that cost more than the workers. Forwarding the day's chest CTs to a "
        f"node at each site is the "
        "cheaper way; the centre is for research on exports.",
    ]
    return "\n".join(lines) + "\n"


def _table(sites: Sequence[Site], per_day: float, days: int, times: StageTimes, seed: int) -> list[str]:
    rows = [
        "| segmenter | workers | busy | wait for a worker, 95 % | turnaround: median | 95 % | longest |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for site in sites:
        found = simulate(site, per_day, days, times, seed)
        waits = quantiles(found.waiting, n=100, method="inclusive")[94]
        cells = [time_text(x) for x in (waits, median(found.turnaround), found.at(95), max(found.turnaround))]
        rows.append(f"| {site.segmenter} | {site.workers} | {found.busy:.0%} | {' | '.join(cells)} |")
    return rows


def time_text(seconds: float) -> str:
    """Seconds, minutes or hours, as one would say it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=100)
    parser.add_argument("--per-day", type=float, default=500)
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    text = page(given.sites, given.per_day, given.days, given.seed)
    print(text, end="")
    if given.out:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
