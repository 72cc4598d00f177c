"""lungmask's U-Net run fast: the label map of `lungmask.LMInferer.apply`, in less than half its time on a CPU.

lungmask's own functions prepare the slices and clean up the labels (crop to the body, 256x256 pixels; largest
components, holes filled). Between them stands this loop instead of lungmask's, with

- batches, in memory that is kept from one to the next, and channels last, which the convolutions want;
- bf16 convolutions where the CPU computes with bf16, each with the ReLU behind it in one step and with weights laid
  out beforehand (oneDNN, as torch's own compiler calls it); batch norms keep their parameters in fp32;
- each upsampling behind the 1x1 convolution that follows it: both are linear and one works within channels, the other
  within pixels, so that they commute, and the convolution has a quarter of the pixels;
- no softmax: it does not change which class is largest.
"""

import ctypes
import logging
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dicomnode.analysis.arrays import HuArray
from dicomnode.errors import ConfigurationError, WeightsError

with warnings.catch_warnings():
    # At its import lungmask mutes UserWarning for the whole process: leaving this block undoes that.
    from lungmask import utils
    from lungmask.resunet import UNet

# It also logs its progress to stdout, which belongs to the command line's results.
logging.getLogger("lungmask").setLevel(logging.WARNING)

#: Slices at once, by the type of device. A GPU wants many.
_BATCH = {"cpu": 8, "cuda": 20}
_PIXELS = 256
#: malloc.h of glibc, and its defaults.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER, _USUAL_MMAP_MAX, _USUAL_TRIM_THRESHOLD = (1 << 31) - 1, 65536, 128 * 1024


class LungmaskNetwork:
    """One network with the weights of one file, loaded once and ready to run.

    Args:
        weights: a state dict of lungmask's network.
        classes: how many classes it must have, background included.
        device: "cpu", "cuda" or "cuda:1".

    Raises:
        WeightsError: the file is no such network.
        ConfigurationError: there is no such device.
    """

    def __init__(self, weights: Path, classes: int, device: str) -> None:
        self._device = torch.device(device)
        offered = torch.cuda.device_count()
        if self._device.type == "cuda" and (self._device.index or 0) >= offered:
            known = ", ".join(["cpu", *(f"cuda:{n}" for n in range(offered))])
            raise ConfigurationError(f"lungmask cannot use the device {device}: torch offers only {known}")
        unet = UNet(n_classes=classes, padding=True, depth=5, up_mode="upsample", batch_norm=True, residual=False)
        try:
            unet.load_state_dict(_state(weights, classes))
        except RuntimeError as error:
            raise WeightsError(
                f"the lungmask weights {weights} do not fit lungmask's network: install the file again"
            ) from error
        self._type = torch.bfloat16 if self._device.type == "cpu" and _computes_bf16() else torch.float32
        self._network = _fast(unet, self._type).to(self._device)

    def __call__(self, hu: HuArray) -> NDArray[np.uint8]:
        """Class of each voxel, of the shape of `hu` (z, y, x), axes as `arrays` says; after lungmask's clean-up."""
        slices, boxes = utils.preprocess(hu, resolution=[_PIXELS, _PIXELS])
        found = np.empty(slices.shape, np.uint8)
        batch = _BATCH[self._device.type]
        with torch.inference_mode(), _memory_kept():
            for first in range(0, len(slices), batch):
                # lungmask's window, in its precision
                scaled = (np.minimum(slices[first : first + batch], 600) + 1024) / 1624
                inputs = torch.from_numpy(scaled[:, None]).to(self._device, torch.float32).to(self._type)
                classes = self._network(inputs.contiguous(memory_format=torch.channels_last)).argmax(1)
                found[first : first + batch] = classes.to("cpu", torch.uint8).numpy()
        found = utils.postprocessing(found, disable_tqdm=True)
        labels = np.empty(hu.shape, np.uint8)
        for index, box in enumerate(boxes):
            labels[index] = utils.reshape_mask(found[index], box, hu.shape[1:])
        return labels


@contextmanager
def _memory_kept() -> Iterator[None]:
    """Large arrays are made again in the memory of those before them.

    glibc gives a large block back to the system when it is freed, and the next one of the same size gets its pages
    anew, filled with zeros one by one: with feature maps of 67 MB that took a tenth of the network's time. Within this
    block glibc keeps what is freed, afterwards it gives everything back (mallopt(3), malloc_trim(3)). Where the C
    library is another one, nothing is changed.
    """
    library = ctypes.CDLL(None)
    if not (hasattr(library, "mallopt") and hasattr(library, "malloc_trim")):
        yield
        return
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        library.mallopt(_MMAP_MAX, _USUAL_MMAP_MAX)
        library.mallopt(_TRIM_THRESHOLD, _USUAL_TRIM_THRESHOLD)
        library.malloc_trim(0)


def filled(labels: NDArray[np.uint8], lungs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Extend labels over the lungs of another network, as lungmask's fill model does, and cut them off outside of them.

    Both are (z, y, x), of one shape; so is the result, with the numbers of `labels`.
    """
    spare = int(labels.max()) + 1
    joined = np.where((labels == 0) & (lungs > 0), spare, labels)
    joined[lungs == 0] = 0
    result: NDArray[np.uint8] = utils.postprocessing(joined.astype(np.uint8), spare=[spare], disable_tqdm=True)
    return result


def _computes_bf16() -> bool:
    """Whether the CPU has instructions for bf16: without them torch emulates it, slower than fp32."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def _fast(unet: nn.Module, kind: torch.dtype) -> nn.Module:
    unet.eval()
    unet.softmax = nn.Identity()
    for block in unet.up_path:  # type: ignore[union-attr]
        upsampling, convolution = block.up
        block.up = nn.Sequential(convolution, upsampling)
    for module in unet.modules():
        if isinstance(module, nn.Conv2d):
            module.to(kind)
    if kind is torch.bfloat16:
        for block in [*unet.down_path, *(up.conv_block for up in unet.up_path)]:  # type: ignore[misc, union-attr]
            steps = list(block.block)
            block.block = nn.Sequential(
                *(_Joined(a) if isinstance(a, nn.Conv2d) else a for a in steps if not isinstance(a, nn.ReLU))
            )
    fast: nn.Module = unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return fast


class _Joined(nn.Module):
    """A convolution and the ReLU behind it."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        c = convolution
        self._settings = (c.padding, c.stride, c.dilation, c.groups)
        with torch.inference_mode():
            self._weight = torch.ops.mkldnn._reorder_convolution_weight(c.weight.detach(), *self._settings)
            self._bias = None if c.bias is None else c.bias.detach()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        joined: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(
            inputs, self._weight, self._bias, *self._settings, "relu", [], ""
        )
        return joined


def _state(weights: Path, classes: int) -> dict[str, torch.Tensor]:
    """Return the file's tensors. Only tensors: lungmask itself would run code that a file brings along."""
    try:
        state: dict[str, torch.Tensor] = torch.load(weights, map_location="cpu", weights_only=True)
        found = len(state["last.bias"])
    except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError, IndexError) as error:
        raise WeightsError(
            f"the lungmask weights {weights} are not a state dict of lungmask's network (incomplete copy?): "
            "install the file again"
        ) from error
    if found != classes:
        kinds = {3: "right and left lung (R231, R231CovidWeb)", 6: "lobes (LTRCLobes)"}
        raise WeightsError(
            f"the lungmask weights {weights} have {found} classes; {kinds[classes]} has {classes} with background"
        )
    return state
