"""How an encoder without ImageNet weights starts: so that it sees from the first step how dense the lung is."""

import torch
from torch import nn

from dicomnode.analysis.risk.network import normalised
from dicomnode.analysis.risk.preprocess import Spec

#: Between well aerated lung (about -860 HU) and ground glass: what lies below it and what lies above look opposite.
_MIDDLE_HU = -800.0
#: Of the bias that is left at `_MIDDLE_HU`, so that a patch of that density is no division by nearly nothing.
_BIAS_SD = 0.2


def start_at_random(encoder: nn.Module, backbone: str, spec: Spec) -> None:
    """Make a random encoder's first layer tell attenuations apart. Draws from torch's generator.

    Swin-T's patch embedding is a convolution with LayerNorm behind it, and LayerNorm of a patch of one grey value is
    the same for every value but for the sign (and the convolution's small bias). A lung's patches are about that, and
    all of them lie below ImageNet's mean: a random Swin-T hardly sees whether a lung is aerated. With the bias that
    moves the zero to lung's own middle, they lie on both sides. Batch normalisation keeps differences, so the other
    backbones start as torchvision makes them.

    Args:
        encoder: of `analysis.risk.backbones.encoder`, random.
        backbone: its name.
        spec: how the input is made.
    """
    if backbone != "swin_t":
        return
    embedding = encoder.get_submodule("features.0.0")
    assert isinstance(embedding, nn.Conv2d) and embedding.bias is not None
    low, high = spec.window_hu
    middle = normalised((_MIDDLE_HU - low) / (high - low))
    with torch.no_grad():
        embedding.bias.normal_(0, _BIAS_SD).sub_(middle * embedding.weight.sum(dim=(1, 2, 3)))
