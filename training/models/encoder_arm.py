"""The arm on frozen embeddings: each scan is embedded once by somebody's 3-D encoder, and a tabular model learns of it.

The embedding is the node's own (`dicomnode.analysis.risk.encoder`), kept by digest of volume, encoder and spec, so that
folds, runs and repeated starts compute it once. In a fold's folder: as of the tabular arm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError

from dicomnode.analysis.risk.encoder import Encoder, EncoderSpec, load_encoder, names
from dicomnode.errors import BundleError, UsageError
from dicomnode.files import sha256_of, write_whole
from dicomnode.registry_format.volumes import read_volume
from training.files import digest
from training.models.arm import Data, Rows
from training.models.encoder_settings import EncoderSettings
from training.models.tabular_arm import FittedRadiomics, RadiomicsArm
from training.models.tabular_models import candidates_of
from training.models.tabular_settings import RadiomicsSettings
from training.progress_type import ProgressCallback

NAME = "encoder"


def make(table: Mapping[str, object]) -> "EncoderArm":
    """Return the arm with the settings of a table; the file is looked at when it is needed.

    Raises:
        UsageError: a setting is unknown, missing or does not fit.
    """
    try:
        settings = EncoderSettings.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"encoder.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    for name in ("path", "sha256", "licence", "spec"):
        if not getattr(settings, name):
            what = EncoderSettings.model_fields[name].description
            raise UsageError(f"the arm encoder needs encoder.{name}: {what}")
    try:
        spec = EncoderSpec.from_dict(settings.spec)
    except ValueError as error:
        raise UsageError(f"encoder.spec: {str(error).removeprefix('encoder spec: ')}") from None
    return EncoderArm(settings, spec)


@dataclass(frozen=True)
class EncoderArm:
    """See the module."""

    settings: EncoderSettings
    spec: EncoderSpec
    name: str = NAME

    @cached_property
    def _encoder(self) -> Encoder:
        path = self.settings.path
        assert path is not None, "make has seen to it"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UsageError(f"encoder.path: {path}: {error.strerror}") from None
        try:
            return load_encoder(content, self.settings.sha256, self.spec, None, path.name)
        except BundleError as error:
            raise UsageError(f"encoder.path: {error}") from None

    def load(self) -> None:
        """Compare the file with its digest, and load it.

        Raises:
            UsageError: it is missing, another one, or no TorchScript.
        """
        _ = self._encoder

    def embed(self, volume: Path) -> NDArray[np.float32]:
        """Return the embedding of a stored volume: the encoder's numbers, (width,).

        Raises:
            UsageError: the volume is none, or the encoder fails on it.
            RefusedError: it has no lungs.
        """
        try:
            return self._encoder.embed(*read_volume(volume))
        except BundleError as error:
            raise UsageError(f"{volume}: {error}") from None

    def head(self, width: int) -> RadiomicsArm:
        """Return the tabular arm that learns of embeddings."""
        chosen = self.settings
        of = RadiomicsSettings(models=chosen.models, correlation=chosen.correlation, stability=chosen.stability)
        return RadiomicsArm(of, name=NAME, columns=names(width), candidates=candidates_of(chosen))

    def fit(
        self,
        data: Data,
        train: Rows,
        inner: Sequence[tuple[Rows, Rows]],
        folder: Path,
        seed: int,
        progress: ProgressCallback,
    ) -> FittedRadiomics:
        """See `training.models.arm.Arm`.

        Raises:
            UsageError: a scan has no volume, or the encoder fails on it.
            RefusedError: a scan has no lungs.
            FitError: no model could be fitted.
        """
        table = self.embeddings(data, progress)
        known = replace(data, features=table)
        return self.head(table.shape[1]).fit(known, train, inner, folder, seed, progress)

    def embeddings(self, data: Data, progress: ProgressCallback) -> pd.DataFrame:
        """Return all scans' embeddings, a row a scan, `encoder.0` and so on; those in the cache are not computed again.

        Raises:
            UsageError: a scan has no volume, or the encoder fails on it.
            RefusedError: a scan has no lungs.
        """
        volumes = [data.volume(row) for row in range(len(data.cohort))]
        if without := sum(volume is None for volume in volumes):
            raise UsageError(
                f"{without} of {len(volumes)} scans have no stored volume, which {NAME} needs: export the registry "
                "with volumes, exclude these scans from the cohort, or remove this arm from `arms`"
            )
        cache = self.settings.cache or data.registry / "embeddings"
        folder = cache / digest(self.settings.sha256, self.spec.to_dict())[:16]
        folder.mkdir(parents=True, exist_ok=True)
        found: list[NDArray[np.float32]] = []
        for done, volume in enumerate(volumes):
            progress("Embedding scans", done, len(volumes))
            assert volume is not None
            found.append(self._kept(folder, volume))
        progress("Embedding scans", len(volumes), len(volumes))
        return pd.DataFrame(np.stack(found).astype(np.float64), columns=list(names(len(found[0]))))

    def _kept(self, folder: Path, volume: Path) -> NDArray[np.float32]:
        path = folder / f"{_sha256(volume)}.npy"
        if path.is_file():
            kept: NDArray[np.float32] = np.load(path, allow_pickle=False)
            return kept
        made = self.embed(volume)
        write_whole(path, lambda file: np.save(file, made, allow_pickle=False))
        return made


#: Digests by path, size and time: the folds of a run ask for the same files.
_KNOWN: dict[tuple[str, int, int], str] = {}


def _sha256(volume: Path) -> str:
    try:
        state = volume.stat()
    except OSError as error:
        raise UsageError(f"{volume}: {error.strerror}; the cohort names it as a scan's volume") from None
    key = (str(volume), state.st_size, state.st_mtime_ns)
    if key not in _KNOWN:
        _KNOWN[key] = sha256_of(volume)
    return _KNOWN[key]
