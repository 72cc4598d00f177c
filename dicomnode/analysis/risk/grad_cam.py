"""Where a network looks: Grad-CAM (Selvaraju et al. 2017) of the log cumulative hazard.

It is taken on the encoder's last feature maps, and is as coarse as these.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dicomnode.analysis.risk.network import HazardNet, risk


@dataclass(frozen=True)
class Heat:
    """A scan's heat map.

    Attributes:
        map: (slices, height, width), 0 to 1; all 0 where nothing speaks for a higher risk.
        risk: that the network gives, at the end of the interval.
    """

    map: NDArray[np.float32]
    risk: float


@dataclass(frozen=True)
class Cells:
    """What `Heat` is made of, on the network's own coarse grid.

    Attributes:
        heat: (slices, rows, columns), 0 or above: what a cell adds to the log cumulative hazard, to first order.
        attention: (slices,), sums to 1.
        risk: that the network gives, at the end of the interval.
    """

    heat: NDArray[np.float32]
    attention: NDArray[np.float64]
    risk: float


def grad_cam(net: HazardNet, slices: NDArray[np.float32], interval: int) -> Heat:
    """Return where a scan's slices speak for a higher risk, at their own resolution.

    Args:
        net: in evaluation mode; where it takes a prior scan, it is asked without.
        slices: prepared, (slices, height, width), 0 to 1.
        interval: at whose end the risk is, from 0.
    """
    found = cells(net, slices, interval)
    coarse = torch.from_numpy(found.heat)[:, None]
    grown = nn.functional.interpolate(coarse, size=slices.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    top = float(grown.max())
    return Heat((grown / top if top > 0 else grown).numpy().astype(np.float32), found.risk)


def cells(
    net: HazardNet,
    slices: NDArray[np.float32],
    interval: int,
    before: Tensor | None = None,
    years: Tensor | None = None,
) -> Cells:
    """Return the heat of each cell of the encoder's last maps.

    The gradient is kept from those maps on, so that it takes no more memory than a prediction.

    Args:
        net: in evaluation mode.
        slices: prepared, (slices, height, width), 0 to 1.
        interval: at whose end the risk is, from 0.
        before: code of a prior scan, as `HazardNet.hazards` takes it; None: there is none.
        years: since the prior scan, likewise.
    """
    given = torch.from_numpy(slices)[None]
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        torch.set_grad_enabled(True)  # from here on; `no_grad` below sets it back
        return kept[0].clone()  # what comes next may change it in place

    with torch.no_grad():
        layer = _last_map(net, given[:, :1])
        hook = layer.register_forward_hook(keep)
        try:
            pooled, attention = net.look(given)
            chance = risk(net.hazards(pooled, before, years)[0].double())[interval]
            hazard = torch.log(-torch.log1p(-chance.clamp(1e-12, 1 - 1e-12)))
            (gradient,) = torch.autograd.grad(hazard, kept[0])
        finally:
            hook.remove()
    maps = kept[0].detach()
    if maps.shape[1] != net.width:  # channels last
        maps, gradient = maps.permute(0, 3, 1, 2), gradient.permute(0, 3, 1, 2)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    heat = torch.relu((weights * maps).sum(dim=1)).float()
    return Cells(heat.numpy(), attention[0].detach().double().numpy(), float(chance.detach()))


def _last_map(net: HazardNet, slices: Tensor) -> nn.Module:
    """Return the encoder's last module whose output is still a map, (slices, …) of four axes."""
    found: list[nn.Module] = []

    def note(module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[1:3]) > 1 < max(output.shape[2:]):
            found.append(module)

    hooks = [module.register_forward_hook(note) for module in net.encoder.modules() if module is not net.encoder]
    try:
        net.look(slices)
    finally:
        for hook in hooks:
            hook.remove()
    return found[-1]
