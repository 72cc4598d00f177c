"""The model bundle: a folder with weights, `model.toml`, a golden case and a card.

`load_bundle` checks all of it before it serves.

```
model.toml          what the model is, how its input is made, digests of every other file, its own seal (see `manifest`)
*.safetensors       networks (half precision), and the golden case's scan
*.json              tabular models, and golden.json: the golden case's features, expected risk, tolerance
reference.json      the distribution of the inputs it was made on (see `reference`); none in older bundles
MODEL_CARD.md       for people
model.sig           whose it is (see `signature`); only where somebody has signed it
```
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicomnode.analysis.arrays import Labels, Volume
from dicomnode.analysis.findings import Horizon, IntendedUse, Risk, RiskExplanation, SliceRelevance
from dicomnode.analysis.risk import explanation
from dicomnode.analysis.risk.fold_models import FoldModels
from dicomnode.analysis.risk.manifest import Manifest
from dicomnode.analysis.risk.network import horizon_indices
from dicomnode.analysis.risk.preprocess import Spec, slice_positions
from dicomnode.analysis.risk.queries import PriorScan, Question
from dicomnode.analysis.risk.reference import ReferenceDistribution
from dicomnode.errors import BundleError


@dataclass(frozen=True)
class Bundle:
    """A model ready to predict. `sha256` is over model.toml, which holds the digests of all other files.

    `reference`: the distribution of its training inputs; None in bundles of before.
    """

    folder: Path
    manifest: Manifest
    spec: Spec | None
    models: FoldModels
    sha256: str
    reference: ReferenceDistribution | None = None

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
                f"the bundle {self.name!r} needs radiomics, which are switched off: set analysis.radiomics = true, or "
                "choose a bundle without them"
            )
        if json.loads(json.dumps(settings)) != needed:
            raise BundleError(
                f"the bundle {self.name!r} was trained with other radiomics settings than this node's (model.toml, "
                "radiomics), so that features would not be comparable. Train it with features.radiomics_spacing_mm = 1 "
                "and with features.radiomics_preparation as analysis.radiomics_preparation is here"
            )

    def predict(
        self,
        volume: Volume,
        labels: Labels,
        features: Mapping[str, float] | None = None,
        prior: PriorScan | None = None,
        scanner: Mapping[str, str] | None = None,
        *,
        explained: bool = False,
    ) -> Risk:
        """Probability of death within each horizon, with bounds; none falls with time; lower <= probability <= upper.

        Args:
            volume: the scan, HU.
            labels: its lungs, (z, y, x), 0 background, 1 right, 2 left.
            features: measured numbers by the names of `tabular.features_of`; what the model does not use is passed
                over.
            prior: of the patient's latest prior scan; not used where another bundle has seen that one.
            scanner: `tabular.BATCH_PARTS` by name.
            explained: whether it also tells how its arms weigh the scan (`explanation`); networks look twice then.

        Raises:
            RefusedError: no-lungs, features-missing, covariate-missing or covariate-out-of-range.
        """
        asked = self.models.encoded(Question(volume, labels, features or {}, scanner or {}, prior))
        answer = self.models.answer(asked)
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
            disease=self.manifest.population.disease if self.intended_use == "research" else "",
            recalibrated_to="" if self.manifest.site_calibration is None else self.manifest.site_calibration.site,
            explanation=self._explanation(asked) if explained else None,
        )

    def _explanation(self, asked: Question) -> RiskExplanation:
        """Of the risk within the last horizon."""
        years = max(self.manifest.horizons_years)
        (interval,) = horizon_indices(self.manifest.edges_years, [years])
        return explanation.explain(self.models, asked, interval, years)

    def _relevance(
        self, volume: Volume, labels: Labels, attention: NDArray[np.float64] | None
    ) -> tuple[SliceRelevance, ...]:
        if attention is None or self.spec is None:
            return ()
        pairs = zip(slice_positions(volume, labels, self.spec), attention, strict=True)
        return tuple(SliceRelevance(round(float(z), 2), round(float(weight), 6)) for z, weight in pairs)
