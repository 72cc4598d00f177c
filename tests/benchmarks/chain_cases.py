"""The whole way from files to results: the plain chain of the usual libraries against `dicomnode analyze`.

The plain chain: SimpleITK's reader, our classical segmenter (no stock one without weights), PyRadiomics on both
lungs and each, numpy, highdicom's SEG; no risk, no SR, no summary, no checks of the input. Both start with the imports
done and the bundle unread.
"""

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import SimpleITK as sitk

from dicomnode.analysis.arrays import LEFT, RIGHT, Volume
from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.radiomics.extract import DEFAULT_SETTINGS
from dicomnode.operations import analyze
from tests.benchmarks import segmentation_cases
from tests.benchmarks.inputs import files
from tests.benchmarks.measured import Cost

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from radiomics.featureextractor import RadiomicsFeatureExtractor

NAME = "files to results (segment, measure, radiomics of three regions, SEG; ours also risk, SR, summary)"
STOCK = "SimpleITK, PyRadiomics, numpy, highdicom"


def _stock(case: str) -> Callable[[], dict[str, Any]]:
    folder = str(files(case)[0].parent)
    encode = segmentation_cases.WORK["stock"](case)
    logging.getLogger("radiomics").setLevel(logging.ERROR)

    def work() -> dict[str, Any]:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder))
        image = sitk.DICOMOrient(reader.Execute(), "LPS")
        x, y, z = image.GetSpacing()
        axes = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
        hu = sitk.GetArrayFromImage(image).astype(np.int16)
        labels = ClassicalSegmenter()(Volume(hu, (z, y, x), image.GetOrigin(), axes, ()))
        extractor = RadiomicsFeatureExtractor(json.loads(json.dumps(DEFAULT_SETTINGS)))
        regions = [np.isin(labels, kept).astype(np.uint8) for kept in ((RIGHT, LEFT), (RIGHT,), (LEFT,))]
        for region in regions:
            mask = sitk.GetImageFromArray(region)
            mask.CopyInformation(image)
            extractor.execute(image, mask)
            np.percentile(hu[region > 0], (5, 15, 50, 85, 95))
        encode()
        return {
            "mean_hu": float(hu[labels > 0].mean(dtype=np.float64)),
            "ml": float((labels > 0).sum() * x * y * z / 1000),
        }

    return work


def _ours(case: str) -> Callable[[], dict[str, Any]]:
    folder = files(case)[0].parent

    def work() -> dict[str, Any]:
        with TemporaryDirectory() as out:
            analyze.run(folder, Path(out), None)
            found = json.loads(Path(out, "findings.json").read_text("utf-8"))
        return {"mean_hu": found["quantities"]["lungs"]["mean_hu"], "ml": found["lungs"]["volume_ml"]["total"]}

    return work


def agreement(stock: Cost, ours: Cost) -> str:
    """Volume and mean attenuation."""
    if np.allclose(stock.found["ml"], ours.found["ml"]) and np.allclose(stock.found["mean_hu"], ours.found["mean_hu"]):
        return "same lung volume and mean attenuation"
    return f"{stock.found} and {ours.found}"


REPEATS = 1
WORK = {"stock": _stock, "ours": _ours}
