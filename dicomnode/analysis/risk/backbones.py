"""The image encoders, and the one place where torchvision is imported."""

import sys
from types import ModuleType

import torch
from torch import nn

if not torch.backends.cuda.is_built() and not hasattr(torch.ops.torchvision, "nms"):
    # torchvision's published wheel is built for CUDA; on a CPU-only torch its import fails with «operator
    # torchvision::nms does not exist», because its compiled library is not loaded and two Python registrations then
    # find no operator. The schemas alone are enough: nothing here calls them. The library object must live as long as
    # the process.
    _schemas = torch.library.Library("torchvision", "DEF")
    _schemas.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _schemas.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

_COMPILER = "torch._dynamo.utils"
if _COMPILER in sys.modules:
    from torchvision import models as models  # noqa: PLC0414  (others import it from here)
else:
    # torchvision's detection operators, which nothing here calls, import torch's compiler for one question that they
    # ask when they run. It takes longer to import than torch and torchvision together, in every process that predicts.
    # They get a module that answers «no» (then they take their usual way); whoever wants the compiler imports it anew.
    _stand_in = ModuleType(_COMPILER)
    _stand_in.is_compile_supported = lambda _device_type: False  # type: ignore[attr-defined]
    sys.modules[_COMPILER] = _stand_in
    try:
        from torchvision import models as models  # noqa: PLC0414
    finally:
        del sys.modules[_COMPILER]

BACKBONES = ("resnet18", "densenet121", "swin_t")


def encoder(name: str) -> tuple[nn.Module, int]:
    """Return a 2-D encoder without its classifier, randomly initialised.

    It takes images (n, 3, height, width) to features (n, width).

    Returns:
        The encoder and its feature width.

    Raises:
        ValueError: `name` is not one of `BACKBONES`.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}: use one of {', '.join(BACKBONES)}")
    net: nn.Module = getattr(models, name)(weights=None)
    head = {"resnet18": "fc", "densenet121": "classifier", "swin_t": "head"}[name]
    classifier = getattr(net, head)
    width = int(classifier.in_features)
    setattr(net, head, nn.Identity())
    return net, width
