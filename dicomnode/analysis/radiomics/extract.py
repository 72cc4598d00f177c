"""PyRadiomics' features of whole lungs: image, mask and settings go in, plain numbers come out.

The values are those of PyRadiomics 3.0.1. It takes minutes for a pair of lungs at 1 mm; the modules beside this one
(`resampling`, `radiomics_region`, `shape_features`, `first_order`, `texture_matrices`, `texture_features`) take about a
second for the settings that this project uses. All other settings, and the filtered images (LoG, wavelets), go to
PyRadiomics itself.
"""

import copy
import functools
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import SimpleITK as sitk

from dicomnode.analysis.arrays import LEFT, RIGHT, Labels, Mask, Volume
from dicomnode.analysis.radiomics.itk_grid import ItkGrid, Solid, Values
from dicomnode.errors import ConfigurationError, RefusedError

with warnings.catch_warnings():
    # PyRadiomics 3.0.1 predates Python 3.11: escapes in its docstrings and dependencies that other packages replaced.
    warnings.simplefilter("ignore")
    from radiomics import getFeatureClasses
    from radiomics.featureextractor import RadiomicsFeatureExtractor

    from dicomnode.analysis.radiomics import (
        first_order,
        ibsi,
        texture,
        texture_matrices,
    )
    from dicomnode.analysis.radiomics import (
        region as radiomics_region,
    )
    from dicomnode.analysis.radiomics import (
        shape as shape_features,
    )

#: PyRadiomics' parameter file for whole lungs: 107 features of the original image, with the parameters of IBSI's
#: configuration C for CT but at 1 mm: bins of 25 HU, re-segmented to [-1000, 400] HU (the intensities; the shape keeps
#: the mask inside the bounding box of what is left). PyRadiomics prepares image and mask in ways of its own, so of
#: IBSI's 102 consensus values on the CT phantom it meets 20; prepared as IBSI asks (`with_preparation`), all of them.
#: Linear, because splines overshoot at the pleura and at vessels, where lung CT is steepest. Kurtosis is IBSI's plus 3.
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
        "resampledPixelSpacing": [1, 1, 1],
        "interpolator": "sitkLinear",
        "padDistance": 5,
        # Hashes and versions of each run: dicomnode records its own, and hashing a lung costs seconds.
        "additionalInfo": False,
    },
}


#: Filtered images of which PyRadiomics makes features too. LoG needs widths, wavelets have their eight bands.
FILTERS = ("LoG", "Wavelet")


def with_filters(filters: Sequence[str], sigma_mm: Sequence[float]) -> dict[str, Any]:
    """`DEFAULT_SETTINGS` with the features of filtered images besides: 93 for each width of LoG, 744 for the wavelets.

    Args:
        filters: some of `FILTERS`, none: the defaults.
        sigma_mm: widths of the Laplacian of Gaussian.
    """
    known = {"LoG": {"sigma": list(sigma_mm)}, "Wavelet": {}}
    images = {**DEFAULT_SETTINGS["imageType"], **{name: known[name] for name in FILTERS if name in filters}}
    return {**DEFAULT_SETTINGS, "imageType": images}


def with_preparation(settings: Mapping[str, Any], preparation: str) -> dict[str, Any]:
    """Return the settings with the way in which image and mask are prepared for the features.

    Args:
        settings: a parameter file of PyRadiomics as a mapping, with or without a preparation.
        preparation: "pyradiomics", or one of `ibsi.PREPARATIONS`; it becomes a key that PyRadiomics does not know.
    """
    plain = {key: value for key, value in settings.items() if key != "preparation"}
    return plain if preparation == "pyradiomics" else {**plain, "preparation": preparation}


def by_region(
    volume: Volume,
    labels: Labels,
    settings: Mapping[str, Any] = DEFAULT_SETTINGS,
    progress: Callable[[float], None] | None = None,
) -> tuple[dict[str, dict[str, float]], dict[str, RefusedError]]:
    """Run `extract` on "lungs" (both together), "right" and "left"; and say why of a region there are no features.

    Args:
        volume: the scan, HU.
        labels: (z, y, x), 0 background, 1 right, 2 left.
        settings: PyRadiomics' own.
        progress: called with the share of the work that is done; filtered images take minutes.

    Raises:
        ConfigurationError: PyRadiomics does not accept the settings.
    """
    found: dict[str, dict[str, float]] = {}
    refused = {}
    regions = {"lungs": (RIGHT, LEFT), "right": (RIGHT,), "left": (LEFT,)}
    for number, (name, sides) in enumerate(regions.items()):
        mask = labels > 0 if len(sides) > 1 else labels == sides[0]

        def told(share: float, before: int = number) -> None:
            if progress is not None:
                progress((before + share) / len(regions))

        try:
            found[name] = extract(volume, mask, settings, told)
        except RefusedError as error:
            refused[name] = error
    return found, refused


def extract(
    volume: Volume,
    mask: Mask,
    settings: Mapping[str, Any] = DEFAULT_SETTINGS,
    progress: Callable[[float], None] | None = None,
) -> dict[str, float]:
    """Features of the masked voxels of a volume. The mask's voxels have label 1: leave `label` at 1 in the settings.

    Args:
        volume: the volume, HU.
        mask: bool (z, y, x) of the volume's shape.
        settings: a parameter file of PyRadiomics as a mapping (imageType, featureClass, setting), and with
            `preparation` one that is prepared as IBSI asks (`ibsi`).
        progress: called after the original image and after each filter, with the share that is done.

    Raises:
        ConfigurationError, RefusedError: as `extract_image`.
    """
    # Not cropped to the mask first: PyRadiomics' resampling grid starts at the image's corner, and another corner means
    # other sampling points and slightly other values. Only the mask's surroundings are resampled.
    depth, height, width = volume.hu.shape
    z, y, x = volume.spacing_mm
    grid = ItkGrid(
        (width, height, depth), (x, y, z), volume.origin_mm, tuple(np.array(volume.axes[::-1]).T.ravel().tolist())
    )
    inside = mask.view(np.uint8)
    with _quiet(), _refusing():
        if "preparation" in settings:
            return _as_ibsi(settings, volume.hu, inside, grid)
        found: dict[str, float] = {}
        parts = _parts(settings)
        for done, part in enumerate(parts, start=1):
            extractor = _extractor(part)
            if _covered(extractor, volume.hu.dtype):
                found |= _fast(extractor, volume.hu, inside, grid)
            else:
                found |= _stock(extractor, grid.image(volume.hu), grid.image(inside))
            if progress is not None:
                progress(done / len(parts))
        return found


def extract_image(image: sitk.Image, mask: sitk.Image, settings: Mapping[str, Any]) -> dict[str, float]:
    """Compute PyRadiomics' features by its own names (`original_glcm_Contrast`), without its diagnostics.

    `image` and `mask` have the same shape; the region is where the mask has the settings' label.

    The values are stock PyRadiomics' to 1e-6 (relative) or better. They are computed by this package's own loops where
    these cover the settings and the image (see `_covered`), otherwise by stock PyRadiomics. With `preparation` in the
    settings they are PyRadiomics' formulas on a region that is prepared as IBSI asks, and named `ibsi_glcm_Contrast`.

    Raises:
        ConfigurationError: PyRadiomics does not accept the settings, or the preparation cannot be had with them.
        RefusedError: `radiomics-region`, the mask is empty or too small for the features.
    """
    with _quiet(), _refusing():
        if "preparation" in settings:
            inside = sitk.GetArrayFromImage(mask) == settings.get("setting", {}).get("label", 1)
            return _as_ibsi(settings, sitk.GetArrayFromImage(image), inside.view(np.uint8), ItkGrid.of(image))
        extractor = _extractor(settings)
        values = sitk.GetArrayViewFromImage(image)
        if image.GetDimension() == 3 and image.IsSameImageGeometryAs(mask) and _covered(extractor, values.dtype):
            inside = sitk.GetArrayFromImage(mask) == extractor.settings["label"]
            return _fast(extractor, values, inside.view(np.uint8), ItkGrid.of(image))
        return _stock(extractor, image, mask)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # PyRadiomics' validator loads plug-ins the old way, it indexes one-element arrays, and it divides by zero where
        # it then answers with a value of its own: nothing that a user of dicomnode could act upon.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", category=RuntimeWarning, module="radiomics")
        yield


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise RefusedError(
            "radiomics-region", f"PyRadiomics cannot measure this region ({error}): the mask is empty or too small"
        ) from error


def _parts(settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return settings that give the same features one after the other: of the original image, then of each filter.

    The shape is the mask's, and comes with the original image alone.
    """
    images = settings.get("imageType") or {}
    if "Original" not in images or len(images) == 1:
        return [settings]
    classes = {k: v or [] for k, v in _extractor(settings).enabledFeatures.items() if k != "shape"}
    kinds = [(name, given) for name, given in images.items() if name != "Original"] if classes else []
    filters = [
        {name: one}
        for name, given in kinds
        for one in ([{**given, "sigma": [s]} for s in given["sigma"]] if (given or {}).get("sigma") else [given])
    ]
    original = {**settings, "imageType": {"Original": images["Original"]}}
    return [original, *({**settings, "imageType": one, "featureClass": classes} for one in filters)]


def _stock(extractor: RadiomicsFeatureExtractor, image: sitk.Image, mask: sitk.Image) -> dict[str, float]:
    found = extractor.execute(image, mask)
    return {name: float(value) for name, value in found.items() if not name.startswith("diagnostics_")}


#: Settings that the own loops understand with any value, and those that they know with one value only.
_ANY_VALUE = frozenset(
    {"label", "binWidth", "binCount", "resegmentRange", "resegmentShape", "resampledPixelSpacing", "interpolator"}
    | {"padDistance", "minimumROIDimensions", "minimumROISize", "voxelArrayShift", "gldm_a", "additionalInfo"}
    | {"normalizeScale", "removeOutliers", "force2Ddimension", "preCrop"}  # without effect where the next ones hold
)
_ONE_VALUE: Mapping[str, Any] = {
    "normalize": False,
    "distances": [1],
    "force2D": False,
    "symmetricalGLCM": True,
    "weightingNorm": None,
    "resegmentMode": "absolute",
    "correctMask": False,
}


def _covered(extractor: RadiomicsFeatureExtractor, values: np.dtype[Any]) -> bool:
    """Whether the own loops give these features; the one place that decides between them and stock PyRadiomics."""
    setting, features = extractor.settings, extractor.enabledFeatures
    classes = {"shape", "firstorder", *texture.CLASSES}
    return (
        extractor.enabledImagetypes in ({"Original": {}}, {"Original": None})
        and all(k in _ANY_VALUE or (k in _ONE_VALUE and v == _ONE_VALUE[k]) for k, v in setting.items())
        and all(k in classes and not _deprecated(k, names or ()) for k, names in features.items())
        # Of a row of voxels PyRadiomics keeps its one direction even where it is empty.
        and setting["minimumROIDimensions"] >= 2
        # Bins must fit into 16 bits.
        and (setting.get("binCount") or 1) < 1 << 15
        and setting.get("binWidth", 25) >= 4
        and values.kind in "iu"
        and values.itemsize <= 2
    )


def _as_ibsi(settings: Mapping[str, Any], values: Values, inside: Solid, grid: ItkGrid) -> dict[str, float]:
    """Features of a region prepared as IBSI asks; the own loops or none."""
    preparation = settings["preparation"]
    if preparation not in ibsi.PREPARATIONS:
        known = ", ".join(ibsi.PREPARATIONS)
        raise ConfigurationError(f"the radiomics preparation {preparation!r} is unknown: give one of {known}, or none")
    extractor = _extractor(with_preparation(settings, "pyradiomics"))
    planes, extractor.settings["force2D"] = extractor.settings["force2D"], False
    if not _covered(extractor, values.dtype) or extractor.settings.get("resegmentShape"):
        raise ConfigurationError(
            f"the radiomics preparation {preparation!r} is there for original images of whole HU alone, with bins of "
            "4 HU or more, without filters, normalisation, weights or other distances than 1: change those settings, "
            "or omit it"
        )
    setting = {"voxelArrayShift": 0, "gldm_a": 0, **extractor.settings}
    region = ibsi.prepare(values, inside, grid, setting, ibsi.PREPARATIONS[preparation])
    found = _features(extractor, region, setting, in_plane=bool(planes))
    # PyRadiomics begins with the kind of image. Other values under the same name would end up in one column.
    return {name.replace("original", preparation, 1): value for name, value in found.items()}


def _deprecated(feature_class: str, names: Sequence[str]) -> bool:
    known = getFeatureClasses()[feature_class].getFeatureNames()
    return any(known.get(name, True) for name in names)


def _fast(extractor: RadiomicsFeatureExtractor, values: Values, inside: Solid, grid: ItkGrid) -> dict[str, float]:
    """All classes from one preparation, on as many threads as there are cores."""
    setting = {"resegmentShape": False, "voxelArrayShift": 0, "gldm_a": 0, **extractor.settings}
    return _features(extractor, radiomics_region.prepare(values, inside, grid, setting), setting)


def _features(
    extractor: RadiomicsFeatureExtractor,
    region: radiomics_region.Region,
    setting: Mapping[str, Any],
    *,
    in_plane: bool = False,
) -> dict[str, float]:
    wanted = {name: features or [] for name, features in extractor.enabledFeatures.items()}
    found: dict[str, dict[str, float]] = {}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        textures = wanted.keys() & texture.CLASSES
        if textures:
            counting = texture_matrices.start(
                region.levels, region.level_count, int(setting["gldm_a"]), threads, in_plane=in_plane
            )
        if "shape" in wanted:
            shape = threads.submit(shape_features.compute, region.solid, region.spacing_mm, wanted["shape"])
        for name in wanted.keys() & {"firstorder"}:
            voxel_mm3 = float(np.prod(region.spacing_mm))
            found[name] = first_order.compute(
                region.values, region.counts, region.bins, voxel_mm3, setting["voxelArrayShift"]
            )
            found[name] = {k: v for k, v in found[name].items() if not wanted[name] or k in wanted[name]}
        if "shape" in wanted:
            found["shape"] = shape.result()
        if textures:
            matrices = counting.result()
        for name in textures:
            found[name] = texture.compute(name, matrices, region.levels, wanted[name])
    return {f"original_{name}_{feature}": value for name in wanted for feature, value in found[name].items()}


def _extractor(settings: Mapping[str, Any]) -> RadiomicsFeatureExtractor:
    """Return an extractor of its own for each call: it keeps state while it works."""
    return copy.deepcopy(_validated(json.dumps(settings)))


@functools.lru_cache(maxsize=4)
def _validated(settings: str) -> RadiomicsFeatureExtractor:
    """PyRadiomics reads its schema anew for each extractor, which takes longer than most of its features."""
    _silence()
    try:
        # The validator writes defaults into what it is given: it gets a copy.
        return RadiomicsFeatureExtractor(json.loads(settings))
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
