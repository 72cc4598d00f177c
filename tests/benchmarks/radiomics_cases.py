"""107 features of both lungs as one region at 1 mm: PyRadiomics' `execute` against ours."""

import json
import logging
import warnings
from collections.abc import Callable, Mapping

import numpy as np

from dicomnode.analysis.arrays import Volume
from dicomnode.analysis.radiomics import extract
from dicomnode.analysis.radiomics.extract import DEFAULT_SETTINGS
from dicomnode.analysis.radiomics.itk_grid import ItkGrid
from tests.benchmarks.inputs import chest
from tests.benchmarks.measured import Cost

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from radiomics.featureextractor import RadiomicsFeatureExtractor

NAME = "radiomics, 107 features, both lungs, 1 mm"
STOCK = "PyRadiomics 3.0.1 `execute`"


def _stock(case: str) -> Callable[[], Mapping[str, float]]:
    volume, labels = chest(case)
    grid = ItkGrid(
        volume.hu.shape[::-1],
        volume.spacing_mm[::-1],
        volume.origin_mm,
        (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )
    image, mask = grid.image(volume.hu), grid.image((labels > 0).astype(np.uint8))
    logging.getLogger("radiomics").setLevel(logging.ERROR)
    extractor = RadiomicsFeatureExtractor(json.loads(json.dumps(DEFAULT_SETTINGS)))

    def work() -> Mapping[str, float]:
        found = extractor.execute(image, mask)
        return {name: float(value) for name, value in found.items() if name.startswith("original_")}

    return work


def _ours(case: str) -> Callable[[], Mapping[str, float]]:
    volume, labels = chest(case)
    mask = labels > 0
    # The compiled loops are loaded (at the first run ever: compiled) before the clock starts.
    small = np.zeros((12, 12, 12), bool)
    small[3:9, 3:9, 3:9] = True
    noise = np.random.default_rng(0).integers(-900, -700, small.shape, dtype=np.int16)
    extract.extract(Volume(noise, (1.5, 0.7, 0.7), volume.origin_mm, volume.axes, ()), small)
    return lambda: extract.extract(volume, mask)


def agreement(stock: Cost, ours: Cost) -> str:
    """The largest relative difference of any feature."""
    worst = max(abs(ours.found[k] - v) / max(abs(v), 1e-12) for k, v in stock.found.items())
    return f"all {len(stock.found)} values within {worst:.0e} (relative)"


REPEATS = 1
WORK = {"stock": _stock, "ours": _ours}
