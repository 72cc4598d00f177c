"""Where a network looks: Grad-CAM (Selvaraju et al. 2017) of the log cumulative hazard.

It is taken on the encoder's last feature maps.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dicomnode.analysis.risk.network import HazardNet, risk

#: Its feature maps have the channels last.
_CHANNELS_LAST = "swin_t"


@dataclass(frozen=True)
class Heat:
    """A scan's heat map.

    Attributes:
        map: (slices, height, width), 0 to 1; all 0 where nothing speaks for a higher risk.
        risk: that the network gives, at the end of the interval.
    """

    map: NDArray[np.float32]
    risk: float


def grad_cam(net: HazardNet, backbone: str, slices: NDArray[np.float32], interval: int) -> Heat:
    """Return where a scan's slices speak for a higher risk.

    Args:
        net: in evaluation mode; where it takes a prior scan, it is asked without.
        backbone: its encoder's name.
        slices: prepared, (slices, height, width), 0 to 1.
        interval: at whose end the risk is, from 0.
    """
    given = torch.from_numpy(slices)[None]
    kept: list[Tensor] = []
    layer = _last_map(net, given)

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()  # what comes next may change it in place

    hook = layer.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            given.requires_grad_()
            chance = risk(net(given)[0].double())[0, interval]
            hazard = torch.log(-torch.log1p(-chance.clamp(1e-12, 1 - 1e-12)))
            (gradient,) = torch.autograd.grad(hazard, kept[0])
    finally:
        hook.remove()
    maps, gradient = kept[0].detach(), gradient.detach()
    if backbone == _CHANNELS_LAST:
        maps, gradient = maps.permute(0, 3, 1, 2), gradient.permute(0, 3, 1, 2)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    heat = torch.relu((weights * maps).sum(dim=1, keepdim=True)).float()
    grown = nn.functional.interpolate(heat, size=slices.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    top = float(grown.max())
    return Heat((grown / top if top > 0 else grown).numpy().astype(np.float32), float(chance.detach()))


@torch.inference_mode()
def _last_map(net: HazardNet, slices: Tensor) -> nn.Module:
    """Return the encoder's last module whose output is still a map, (slices, …) of four axes."""
    found: list[nn.Module] = []

    def note(module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[1:3]) > 1 < max(output.shape[2:]):
            found.append(module)

    hooks = [module.register_forward_hook(note) for module in net.encoder.modules() if module is not net.encoder]
    try:
        net(slices)
    finally:
        for hook in hooks:
            hook.remove()
    return found[-1]
