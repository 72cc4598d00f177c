"""What a candidate said beside the served bundle, scan by scan."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from dicomnode.store.catalog.registry import RegistryRisk


@dataclass(frozen=True)
class ShadowRow:
    """A candidate beside a served bundle at one horizon. Differences are candidate less served, of probabilities."""

    candidate: str
    served: str
    years: int
    scans: int
    mean_candidate: float
    mean_served: float
    mean_difference: float
    largest_difference: float


def compare(risks: Sequence[RegistryRisk]) -> list[ShadowRow]:
    """For each pair of candidate and served bundle, over the scans that both read."""
    by_scan: dict[str, list[RegistryRisk]] = defaultdict(list)
    for risk in risks:
        by_scan[risk.scan].append(risk)
    pairs: dict[tuple[str, str, int], list[tuple[float, float]]] = defaultdict(list)
    for of_scan in by_scan.values():
        for candidate in (r for r in of_scan if not r.served):
            for served in (r for r in of_scan if r.served):
                for years in sorted(candidate.risk.keys() & served.risk.keys()):
                    pairs[_name(candidate), _name(served), years].append((candidate.risk[years], served.risk[years]))
    return [_row(*key, found) for key, found in sorted(pairs.items())]


def _name(risk: RegistryRisk) -> str:
    return f"{risk.bundle} {risk.version} ({risk.bundle_sha256[:12]})"


def _row(candidate: str, served: str, years: int, found: Sequence[tuple[float, float]]) -> ShadowRow:
    return ShadowRow(
        candidate=candidate,
        served=served,
        years=years,
        scans=len(found),
        mean_candidate=fmean(c for c, _ in found),
        mean_served=fmean(s for _, s in found),
        mean_difference=fmean(c - s for c, s in found),
        largest_difference=max(abs(c - s) for c, s in found),
    )
