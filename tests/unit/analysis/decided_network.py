"""A network of lungmask's shape whose output is decided, in place of the published weights, which are not here.

Random weights answer with noise, in which any rounding flips voxels. This one is fitted to tell tissue, lung and air
apart by their intensity: a readout of its random features by least squares, then a few steps of training everything,
on phantoms. It knows neither lungs from bowel nor right from left: it is good for comparing ways to run a network.
"""

import warnings
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from dicomnode.analysis.phantom import phantom

with warnings.catch_warnings():
    from lungmask import utils
    from lungmask.resunet import UNet

#: Each of the two labels is one large piece: lungmask keeps the largest piece of each.
AIR, LUNG, TISSUE = range(3)


def fitted(path: Path, steps: int, pixels: int) -> Path:
    """Write the state dict of such a network, fitted on slices of pixels x pixels; returns `path`."""
    torch.manual_seed(7)
    unet = UNet(n_classes=3, padding=True, depth=5, up_mode="upsample", batch_norm=True, residual=False)
    inputs, targets = _examples(pixels)
    _normalise(unet, inputs)
    _read_out(unet, inputs, targets)
    _train(unet, inputs, targets, steps)
    torch.save(unet.state_dict(), path)
    return path


def _examples(pixels: int) -> tuple[torch.Tensor, torch.Tensor]:
    chest = phantom.chest(1, shape=(12, 128, 128), spacing_mm=(24.0, 2.8, 2.8))
    slices, _ = utils.preprocess(chest.volume.hu[2:9], resolution=[pixels, pixels])
    smooth = ndimage.gaussian_filter(slices.astype(float), (0, 1.5, 1.5))
    inputs = torch.tensor((slices.clip(-1024, 600) + 1024) / 1624, dtype=torch.float32)[:, None]
    return inputs, torch.tensor(np.select([smooth < -935, smooth < -450], [AIR, LUNG], TISSUE))


def _normalise(unet: UNet, inputs: torch.Tensor) -> None:
    """Random weights shrink what passes: batch norms take the statistics of the examples."""
    norms = [m for m in unet.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain mean over all batches
    with torch.no_grad():
        unet.train()(inputs[::3])
    unet.eval()
    for norm in norms:
        norm.momentum = 0.1


def _read_out(unet: UNet, inputs: torch.Tensor, targets: torch.Tensor) -> None:
    features: list[torch.Tensor] = []
    hook = unet.last.register_forward_pre_hook(lambda _, given: features.append(given[0]))
    with torch.no_grad():
        for one in inputs:
            unet(one[None])
    hook.remove()
    rows = torch.cat(features).permute(0, 2, 3, 1).reshape(-1, unet.last.in_channels).double()
    rows = torch.cat([rows, torch.ones(len(rows), 1, dtype=torch.double)], 1)
    wanted = nn.functional.one_hot(targets.reshape(-1), 3).double()
    weight = (1 / wanted.sum(0))[targets.reshape(-1), None]
    ridge = 1e-9 * torch.eye(rows.shape[1], dtype=torch.double)
    solution = torch.linalg.solve(rows.T @ (rows * weight) + ridge, rows.T @ (wanted * weight)).float()
    unet.last.weight.data = solution[:-1].T[:, :, None, None].contiguous()
    unet.last.bias.data = solution[-1].contiguous()


def _train(unet: UNet, inputs: torch.Tensor, targets: torch.Tensor, steps: int) -> None:
    """Batch norms stay as they are (eval): the batches are too small for statistics."""
    optimizer = torch.optim.Adam(unet.parameters(), 1e-4)
    for step in range(steps):
        batch = [step % len(inputs), (step + 3) % len(inputs)]
        loss = nn.functional.nll_loss(unet(inputs[batch]), targets[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
