"""Radiomic features by stock PyRadiomics: image, mask and settings go in, plain numbers come out."""

import json
import logging
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from dicomnode.analysis.arrays import Mask, Volume
from dicomnode.errors import ConfigurationError, RefusedError

with warnings.catch_warnings():
    # PyRadiomics 3.0.1 predates Python 3.11: escapes in its docstrings and dependencies that other packages replaced.
    warnings.simplefilter("ignore")
    from radiomics.featureextractor import RadiomicsFeatureExtractor

#: PyRadiomics' parameter file for whole lungs: 107 features of the original image. Resampled to 2 mm, because the
#: search for the largest diameter compares all pairs of surface points and takes a minute at 1 mm. Linear, because
#: splines overshoot at the pleura and at vessels, where lung CT is steepest. Re-segmented to [-1000, 400] HU (the
#: intensities; the shape keeps the mask inside the bounding box of what is left), bins of 25 HU. Kurtosis is IBSI's
#: plus 3.
DEFAULT_SETTINGS: Mapping[str, Any] = {
    "imageType": {"Original": {}},
    "featureClass": {
        "shape": [],
        "firstorder": [],
        "glcm": [],
        "glrlm": [],
        "glszm": [],
        "gldm": [],
        "ngtdm": [],
    },
    "setting": {
        "label": 1,
        "binWidth": 25,
        "resegmentRange": [-1000, 400],
        "resampledPixelSpacing": [2, 2, 2],
        "interpolator": "sitkLinear",
        "padDistance": 5,
        # Hashes and versions of each run: dicomnode records its own, and hashing a lung costs seconds.
        "additionalInfo": False,
    },
}


def extract(volume: Volume, mask: Mask, settings: Mapping[str, Any] = DEFAULT_SETTINGS) -> dict[str, float]:
    """Features of the masked voxels of a volume. The mask's voxels have label 1: leave `label` at 1 in the settings.

    Args:
        volume: the volume, HU.
        mask: bool (z, y, x) of the volume's shape.
        settings: a parameter file of PyRadiomics as a mapping (imageType, featureClass, setting).

    Raises:
        ConfigurationError, RefusedError: as `extract_image`.
    """
    # Not cropped to the mask first: PyRadiomics' resampling grid starts at the image's corner, and another corner means
    # other sampling points and slightly other values. It resamples only the mask's surroundings by itself.
    return extract_image(_image(volume, volume.hu), _image(volume, mask.astype(np.uint8)), settings)


def extract_image(image: sitk.Image, mask: sitk.Image, settings: Mapping[str, Any]) -> dict[str, float]:
    """What stock PyRadiomics computes, by its own names (`original_glcm_Contrast`), without its diagnostics.

    Raises:
        ConfigurationError: PyRadiomics does not accept the settings.
        RefusedError: `radiomics-region`, the mask is empty or too small for the features.
    """
    with warnings.catch_warnings():
        # Its validator loads plug-ins the old way, it indexes one-element arrays, and it divides by zero where it then
        # answers with a value of its own: nothing that a user of dicomnode could act upon.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", category=RuntimeWarning, module="radiomics")
        extractor = _extractor(settings)
        try:
            found = extractor.execute(image, mask)
        except ValueError as error:
            raise RefusedError(
                "radiomics-region", f"PyRadiomics cannot measure this region ({error}): the mask is empty or too small"
            ) from error
    return {name: float(value) for name, value in found.items() if not name.startswith("diagnostics_")}


def _extractor(settings: Mapping[str, Any]) -> RadiomicsFeatureExtractor:
    _silence()
    try:
        # The validator writes defaults into what it is given: it gets a copy.
        return RadiomicsFeatureExtractor(json.loads(json.dumps(settings)))
    except Exception as error:
        raise ConfigurationError(
            f"PyRadiomics does not accept the radiomics settings: {error}. They must be a parameter file of "
            "PyRadiomics 3.0.1 with imageType, featureClass and setting."
        ) from error


def _silence() -> None:
    """Errors come as exceptions: nothing is left that the logs of PyRadiomics and of its validator should add."""
    logging.getLogger("pykwalify").setLevel(logging.CRITICAL)
    logger = logging.getLogger("radiomics")
    logger.setLevel(logging.ERROR)
    # Its own handler writes to stderr. It lends its first handler to the validator, so it must have one.
    logger.handlers = [logging.NullHandler()]


def _image(volume: Volume, array: NDArray[np.int16] | NDArray[np.uint8]) -> sitk.Image:
    """(z, y, x) as an image with the volume's geometry in LPS."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(volume.spacing_mm[::-1])
    image.SetOrigin(volume.origin_mm)
    image.SetDirection(np.array(volume.axes[::-1]).T.ravel().tolist())
    return image
