"""What is known of a series before its pixels are read: headers, planes, and the stack that they form."""

from dataclasses import dataclass

from pydicom import Dataset

from dicomnode.analysis.series import geometry
from dicomnode.analysis.series import selection_rules as rules
from dicomnode.analysis.series.geometry import Plane, SliceStack
from dicomnode.analysis.series.headers import Series
from dicomnode.analysis.series.selection_rules import Rules


@dataclass(frozen=True)
class KnownSeries:
    """What the rules of suitability look at. `stack` is None unless every image has a plane."""

    series: Series
    planes: tuple[Plane | None, ...]
    stack: SliceStack | None
    rules: Rules = rules.DEFAULT

    @property
    def datasets(self) -> list[Dataset]:
        """The headers' data sets."""
        return [h.dataset for h in self.series.headers]


def facts(series: Series, limits: Rules = rules.DEFAULT) -> KnownSeries:
    """Return the geometry of a series, computed once for all rules."""
    planes = tuple(geometry.plane(h.dataset) for h in series.headers)
    known = [p for p in planes if p is not None]
    return KnownSeries(series, planes, geometry.stack(known) if known and len(known) == len(planes) else None, limits)
