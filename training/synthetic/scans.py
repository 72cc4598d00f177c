"""The images of synthetic scans, and what is measured on them: phantoms of reduced resolution with known labels."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dicomnode.analysis.arrays import LEFT, RIGHT
from dicomnode.analysis.measures import quantify
from dicomnode.analysis.phantom.phantom import Disease, Phantom, PhantomScanner, chest
from dicomnode.registry_format.volumes import volume_name, write_volume
from training.synthetic.patients import SyntheticScan

#: Of the phantoms, drawn for each scan: slice step and in-plane voxel, mm. A clinical scan has 0.6 to 1.5 and 0.7.
SLICE_STEP_MM, IN_PLANE_MM = (4.5, 6.0), (3.0, 4.0)
#: Radiomics are computed at this voxel, mm, where the node takes 1: the phantoms hold no finer detail.
RADIOMICS_MM = 4.0

Features = dict[str, float]


def make_scan(folder: Path, scan: SyntheticScan, *, radiomics: bool, volume: bool) -> Features:
    """Make the image of a scan, measure it, and write its lungs below `folder` if asked to.

    Returns:
        Quantities by region, radiomics if asked for, and `spacing_z_mm`.
    """
    phantom = scan_phantom(scan)
    if volume:
        write_volume(folder / volume_name(scan.scan), phantom.volume, phantom.labels)
    regions = quantify.by_region(phantom.volume, phantom.labels)
    found = {f"quantities.{region}.{k}": v for region, q in regions.items() for k, v in asdict(q).items()}
    if radiomics:
        found |= _radiomics(phantom)
    return {**found, "spacing_z_mm": phantom.volume.spacing_mm[0]}


def scan_phantom(scan: SyntheticScan) -> Phantom:
    """Return the image of a scan.

    Disease comes from its severity, noise and kernel from its scanner; breath and voxels are its own.
    """
    rng = np.random.default_rng([scan.seed, 3])
    z, yx = float(rng.uniform(*SLICE_STEP_MM)), float(rng.uniform(*IN_PLANE_MM))
    usual, fibrosis = Disease.of_severity(scan.severity), scan.patient.fibrosis
    mixed = {
        "ground_glass": usual.ground_glass * (2 - fibrosis),
        "reticulation": usual.reticulation * fibrosis,
        "honeycombing": usual.honeycombing * fibrosis,
    }
    varied = {k: v * rng.uniform(0.92, 1.08) for k, v in mixed.items()}
    breath = rng.normal(0, 0.05)  # how far the diaphragm stood from where full inspiration would have it
    disease = {k: float(np.clip(v, 0, 1)) for k, v in {**varied, "volume_loss": usual.volume_loss + breath}.items()}
    noise = scan.scanner.noise_hu * float(rng.uniform(0.8, 1.25))
    return chest(
        scan.seed,
        shape=(round(285 / z), round(255 / yx), round(330 / yx)),
        spacing_mm=(z, yx, yx),
        disease=Disease(**disease),
        scanner=PhantomScanner(noise_hu=noise, sharpness=scan.sharpness),
        person=scan.patient.person,
    )


def radiomics_settings() -> Mapping[str, Any]:
    """Return the node's settings at the registry's resolution."""
    from dicomnode.analysis.radiomics.extract import DEFAULT_SETTINGS  # noqa: PLC0415 (imports PyRadiomics)

    return {
        **DEFAULT_SETTINGS,
        "setting": {**DEFAULT_SETTINGS["setting"], "resampledPixelSpacing": [RADIOMICS_MM] * 3},
    }


def _radiomics(phantom: Phantom) -> Features:
    from dicomnode.analysis.radiomics import extract as radiomics  # noqa: PLC0415 (imports PyRadiomics)

    masks = {"lungs": phantom.labels > 0, "right": phantom.labels == RIGHT, "left": phantom.labels == LEFT}
    settings = radiomics_settings()
    return {
        f"radiomics.{region}.{name}": value
        for region, mask in masks.items()
        for name, value in radiomics.extract(phantom.volume, mask, settings).items()
    }
