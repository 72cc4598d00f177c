"""Changes of prepared slices that leave the outcome as it is: another table position, breath, dose, calibration.

Never mirrored unless asked for: lungs have sides (the heart, three lobes and two), and a mirrored chest is rare.
"""

from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from dicomnode.analysis.risk.preprocess import Spec

Share = Annotated[float, Field(ge=0, le=0.5)]


class Augmentation(BaseModel):
    """How far a slice may be changed; all 0 and False: not at all.

    Attributes:
        zoom: greatest change of size, a share, one for all slices of a scan.
        shift: greatest move, a share of the canvas, one for all slices of a scan.
        brightness_hu: SD of a shift of all lung values, HU.
        contrast: SD of the factor on them, about 1.
        noise_hu: greatest SD of added noise, HU.
        mirror: exchange left and right in half of the scans.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    zoom: Share = 0.06
    shift: Share = 0.04
    brightness_hu: Annotated[float, Field(ge=0, le=200)] = 10.0
    contrast: Share = 0.03
    noise_hu: Annotated[float, Field(ge=0, le=200)] = 15.0
    mirror: bool = False


def augmented(slices: Tensor, spec: Spec, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Return changed slices of the same shape: (scans, slices, height, width), 0 to 1.

    What lies outside the lungs stays there.

    Args:
        slices: prepared by `spec`.
        spec: where 0, 1 and the outside lie in HU.
        how: how far.
        generator: on the slices' device; the same state gives the same changes.
    """
    low, high = spec.window_hu
    outside = (spec.outside_hu - low) / (high - low)

    def drawn(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=slices.device) * 2 - 1

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=slices.device)

    scans = len(slices)
    moved = _moved(slices - outside, drawn(scans, 3), drawn(scans, 1), how)
    inside = moved.abs() > 1e-4
    factor = 1 + how.contrast * normal(scans, 1, 1, 1)
    added = how.brightness_hu * normal(scans, 1, 1, 1)
    added = added + how.noise_hu * drawn(scans, 1, 1, 1).abs() * normal(*slices.shape)
    changed = torch.where(inside, moved * factor + added / (high - low), 0.0)
    return (changed + outside).clamp(0, 1)


def _moved(image: Tensor, place: Tensor, side: Tensor, how: Augmentation) -> Tensor:
    """Zoomed and shifted in the plane; `image` is 0 outside the lungs, so what comes in at the borders is 0."""
    if how.zoom == 0 and how.shift == 0 and not how.mirror:
        return image
    size = 1 / (1 + how.zoom * place[:, 0])
    turn = torch.where((side[:, 0] < 0) & how.mirror, -1.0, 1.0)
    nothing = torch.zeros_like(size)
    rows = [
        torch.stack([size * turn, nothing, 2 * how.shift * place[:, 1]], dim=1),
        torch.stack([nothing, size, 2 * how.shift * place[:, 2]], dim=1),
    ]
    grid = affine_grid(torch.stack(rows, dim=1), list(image.shape), align_corners=False)
    return grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def generator(device: torch.device, *seeds: int) -> torch.Generator:
    """Return a generator of its own for a seed, an epoch, a step.

    So a resumed run draws what an uninterrupted one draws.
    """
    mixed = 0
    for seed in seeds:
        mixed = (mixed * 1_000_003 + seed + 1) % (2**62)
    return torch.Generator(device).manual_seed(mixed)
