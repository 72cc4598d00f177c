"""The model bundle: a folder with weights, `model.toml`, a golden case and a card, all checked before it serves.

```
model.toml          what the model is, how its input is made, digests of every other file, its own seal (see `manifest`)
*.safetensors       networks (half precision), and the golden case's scan
*.json              tabular models, and golden.json: the golden case's features, expected risk, tolerance
MODEL_CARD.md       for people
```
"""

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.analysis.findings import Horizon, IntendedUse, Risk, SliceRelevance
from dicomnode.analysis.risk import fold_models, golden_case
from dicomnode.analysis.risk.fold_models import FoldModels
from dicomnode.analysis.risk.manifest import Manifest, first_error, seal_of
from dicomnode.analysis.risk.network import horizon_indices
from dicomnode.analysis.risk.preprocess import Spec, slice_positions
from dicomnode.analysis.risk.queries import Earlier, Question
from dicomnode.errors import BundleError, DicomnodeError

__all__ = ["Bundle", "Earlier", "load", "read"]


@dataclass(frozen=True)
class Bundle:
    """A model ready to predict. `sha256` is over model.toml, which holds the digests of all other files."""

    folder: Path
    manifest: Manifest
    spec: Spec | None
    models: FoldModels
    sha256: str

    @property
    def name(self) -> str:
        """The model's name."""
        return self.manifest.name

    @property
    def version(self) -> str:
        """The model's version."""
        return self.manifest.version

    @property
    def intended_use(self) -> IntendedUse:
        """What the model may be used for."""
        return self.manifest.intended_use

    @property
    def interval(self) -> str:
        """What the bounds of a prediction are, in words."""
        return self.models.interval

    def check_radiomics(self, settings: Mapping[str, object] | None) -> None:
        """Whether the features that the node measures are those that the model has learnt from.

        Args:
            settings: PyRadiomics' parameter file of the node; None: it measures none.

        Raises:
            BundleError: the model needs radiomics, and there are none, or others.
        """
        needed = self.manifest.radiomics_settings
        if needed is None:
            return
        if settings is None:
            raise BundleError(
                f"the bundle {self.name!r} predicts from radiomics, which are switched off: set analysis.radiomics = "
                "true, or choose a bundle without them"
            )
        if json.loads(json.dumps(settings)) != needed:
            raise BundleError(
                f"the bundle {self.name!r} was trained on radiomics with other settings than this node's (model.toml, "
                "radiomics): its features would mean something else. Train it with features.radiomics_spacing_mm = 1"
            )

    def predict(
        self,
        volume: Volume,
        labels: Labels,
        features: Mapping[str, float] | None = None,
        earlier: Earlier | None = None,
        scanner: Mapping[str, str] | None = None,
    ) -> Risk:
        """Probability of death within each horizon, with bounds; none falls with time; lower <= probability <= upper.

        Args:
            volume: the scan, HU.
            labels: its lungs, (z, y, x), 0 background, 1 right, 2 left.
            features: measured numbers by the names of `tabular.features_of`; what the model does not use is passed
                over.
            earlier: of the patient's latest earlier scan; not used where another bundle has seen that one.
            scanner: `tabular.BATCH_PARTS` by name.

        Raises:
            RefusedError: no-lungs, or features-missing.
        """
        answer = self.models.answer(Question(volume, labels, features or {}, scanner or {}, earlier))
        members = answer.risks[:, horizon_indices(self.manifest.edges_years, self.manifest.horizons_years)]
        mean = members.mean(axis=0)
        # Each member rises with time, so means and percentiles do. With many, very unequal members a mean can leave the
        # percentiles; the bounds then give way, and stay monotone as the minimum or maximum of two monotone rows.
        lower = np.minimum(np.percentile(members, 2.5, axis=0), mean)
        upper = np.maximum(np.percentile(members, 97.5, axis=0), mean)
        return Risk(
            bundle=self.name,
            bundle_sha256=self.sha256,
            intended_use=self.intended_use,
            horizons=tuple(
                Horizon(years, float(p), float(low), float(high))
                for years, p, low, high in zip(self.manifest.horizons_years, mean, lower, upper, strict=True)
            ),
            version=self.version,
            interval=self.interval,
            slice_relevance=self._relevance(volume, labels, answer.attention),
            scan_codes=answer.codes,
            flags=answer.flags,
        )

    def _relevance(
        self, volume: Volume, labels: Labels, attention: NDArray[np.float64] | None
    ) -> tuple[SliceRelevance, ...]:
        if attention is None or self.spec is None:
            return ()
        pairs = zip(slice_positions(volume, labels, self.spec), attention, strict=True)
        return tuple(SliceRelevance(round(float(z), 2), round(float(weight), 6)) for z, weight in pairs)


def load(folder: Path, *, allow_demo: bool) -> Bundle:
    """Read a bundle, check every digest, and let it reproduce its golden case.

    Raises:
        BundleError: a file is missing or changed, model.toml does not fit, the golden case comes out differently, or
            the bundle is a demonstration and `allow_demo` is False; whatever else goes wrong with it is one, too.
    """
    with _blamed(folder):
        bundle, contents = _opened(folder)
        if bundle.intended_use == "synthetic-demo" and not allow_demo:
            raise BundleError(
                f"the bundle {bundle.name!r} in {folder} was trained on synthetic phantoms and is for demonstration "
                "only: its numbers mean nothing for a patient. Install a research bundle, or, to show how the node "
                "works, set analysis.allow_demo_bundles = true in the configuration"
            )
        golden_case.check(bundle, contents)
        return bundle


def read(folder: Path) -> Bundle:
    """Read a bundle and check its digests, without the golden case: for the maker of bundles, who needs it for that.

    Raises:
        BundleError: as `load`, but for the golden case and the intended use.
    """
    with _blamed(folder):
        return _opened(folder)[0]


@contextmanager
def _blamed(folder: Path) -> Iterator[None]:
    """Somebody else made the files: whatever fails while they are read or asked is the bundle's error, and no more."""
    try:
        yield
    except (DicomnodeError, MemoryError):
        raise
    except Exception as error:
        raise BundleError(
            f"{folder} cannot be used as a bundle ({type(error).__name__}: {error}): copy it again from where it was "
            "made, or make it again"
        ) from error


def _opened(folder: Path) -> tuple[Bundle, dict[str, bytes]]:
    """Return the bundle, and the files that are no models, as they were when their digests were checked."""
    # A link may be moved to another bundle at any moment: all files have to be of one.
    folder = folder.resolve()
    text = _bytes(folder / "model.toml")
    try:
        stored = tomllib.loads(text.decode("utf-8"))
        manifest = Manifest.model_validate(stored)
        spec = None if manifest.preprocessing is None else Spec.from_dict(manifest.preprocessing)
    except ValidationError as error:
        raise BundleError(f"{folder / 'model.toml'}: {first_error(error)}") from None
    except ValueError as error:  # not TOML, not UTF-8, or the spec
        raise BundleError(f"{folder / 'model.toml'}: {error}") from None
    if manifest.seal != seal_of(stored):
        raise BundleError(
            f"{folder / 'model.toml'} was changed after it was written: its seal does not fit the rest of it. Copy the "
            "bundle again from where it was made, or make it again with `training bundle`"
        )
    if odd := sorted({path.name for path in folder.iterdir()} - {"model.toml", *manifest.files}):
        raise BundleError(f"{folder} holds {', '.join(odd[:3])}, which model.toml does not list: remove it")
    models = {name for arm in manifest.arms for name in arm.models}
    contents = {}
    for name, expected in manifest.files.items():
        data = _bytes(folder / name)
        found = hashlib.sha256(data).hexdigest()
        if found != expected:
            raise BundleError(
                f"{folder / name} is not the file that model.toml names: sha256 {found[:12]}…, expected "
                f"{expected[:12]}…. Copy the bundle again from where it was made"
            )
        if name not in models:
            contents[name] = data
    sha256 = hashlib.sha256(text).hexdigest()
    return Bundle(folder, manifest, spec, fold_models.read(folder, manifest, sha256), sha256), contents


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BundleError(f"{path} is missing: the bundle is incomplete or the folder is wrong") from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None
