"""Lungs by lungmask's R231 network (Hofmanninger et al., Eur Radiol Exp 2020;4:50), from a weights file at hand.

torch and lungmask are imported when a segmenter is made, not before: without weights nobody needs them here.
"""

import hashlib
import logging
import pickle
import warnings
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.errors import ConfigurationError, RefusedError, WeightsError

if TYPE_CHECKING:
    from lungmask import LMInferer

#: Background, right lung, left lung.
_CLASSES = 3


class LungmaskSegmenter:
    """Right and left lung by lungmask, with the weights of one file and no download.

    In the mask: the lungs with their vessels, nodules and dense disease, as the network learnt them. Not in the mask:
    trachea and main bronchi.

    Args:
        weights: a state dict of lungmask's network with three classes (R231, R231CovidWeb).
        sha256: the expected digest of that file, 64 hexadecimal digits.
        model: the model's name; it becomes part of `name`.
        device: "cpu" or "cuda".

    Raises:
        WeightsError: the file is missing, is not the expected one, or is no such network.
        ConfigurationError: there is no such device.
    """

    def __init__(self, weights: Path, sha256: str, model: str = "R231", device: Literal["cpu", "cuda"] = "cpu") -> None:
        digest = _check_digest(weights, sha256)
        self.name = f"lungmask-{model}"
        self.version = f"{version_of('lungmask')}+{digest[:12]}"
        self._inferer = _inferer(weights, device)

    def __call__(self, volume: Volume) -> Labels:
        """Labels (z, y, x) of the volume's shape: 0 background, 1 right lung, 2 left lung.

        Raises:
            RefusedError: `no-lungs`, the network found none.
        """
        # lungmask takes an array's slices as they are, and learnt on rows from anterior to posterior, columns from
        # right to left, slices from the feet: our axes.
        labels: Labels = self._inferer.apply(volume.hu)
        if not labels.any():
            raise RefusedError(
                "no-lungs", f"no lungs found by {self.name}. Check that the series shows the chest and is in HU."
            )
        return labels


def _check_digest(weights: Path, expected: str) -> str:
    try:
        with weights.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(
            f"cannot read the lungmask weights {weights}: {error.strerror}. Install them there, or choose the "
            "classical segmenter."
        ) from error
    if found != expected.lower():
        raise WeightsError(
            f"the lungmask weights {weights} have sha256 {found}, expected {expected.lower()}: the file is damaged or "
            "another model's. Install it again, or set the digest of the file that you mean."
        )
    return found


def _inferer(weights: Path, device: Literal["cpu", "cuda"]) -> "LMInferer":
    with warnings.catch_warnings():
        # At its import lungmask mutes UserWarning for the whole process: leaving this block undoes that.
        from lungmask import LMInferer  # noqa: PLC0415
    # It also logs its progress to stdout, which belongs to the command line's results.
    logging.getLogger("lungmask").setLevel(logging.WARNING)
    _check_network(weights)
    inferer = LMInferer(modelpath=str(weights), force_cpu=device == "cpu", tqdm_disable=True)
    if inferer.device.type != device:
        raise ConfigurationError(f"lungmask cannot use the device {device}: torch offers {inferer.device.type} here")
    return inferer


def _check_network(weights: Path) -> None:
    """lungmask loads without asking torch to refuse code in the file: this loads it first, with weights only."""
    import torch  # noqa: PLC0415

    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        classes = len(state["last.bias"])
    except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError, TypeError, IndexError) as error:
        raise WeightsError(
            f"the lungmask weights {weights} are not a state dict of lungmask's network (cut off while copying?): "
            "install the file again"
        ) from error
    if classes != _CLASSES:
        raise WeightsError(
            f"the lungmask weights {weights} have {classes} classes; only right and left lung with background "
            f"({_CLASSES} classes: R231, R231CovidWeb) can be used, lobes cannot yet"
        )
