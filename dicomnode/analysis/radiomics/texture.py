"""PyRadiomics' texture features from matrices that are already there: its formulas, without its loops.

Each class below is PyRadiomics' own with the constructor and the counting replaced. What remains of PyRadiomics are the
formulas; what stands here repeats the clean-up between counting and formulas (PyRadiomics' `_calculateMatrix`).
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from radiomics.base import RadiomicsFeaturesBase
from radiomics.glcm import RadiomicsGLCM
from radiomics.gldm import RadiomicsGLDM
from radiomics.glrlm import RadiomicsGLRLM
from radiomics.glszm import RadiomicsGLSZM
from radiomics.ngtdm import RadiomicsNGTDM

from dicomnode.analysis.radiomics.texture_matrices import Levels, Matrices, lines_with_two

Floats = NDArray[np.float64]


class _Counted(RadiomicsFeaturesBase):
    """What PyRadiomics' constructors leave behind, made from counted matrices instead of from images."""

    def __init__(self, matrices: Matrices, levels: Levels) -> None:
        self.logger = logging.getLogger("radiomics")
        self.matrices = matrices
        self.levels = levels
        self.voxelBased = False
        self.enabledFeatures: dict[str, bool] = {}
        self.featureValues: dict[str, Floats] = {}
        self.featureNames = self.getFeatureNames()
        present = np.flatnonzero(matrices.gldm.sum(axis=1))
        self.present = present
        self.coefficients: dict[str, Any] = {"grayLevels": present + 1, "Ng": int(present[-1]) + 1}


class _Glcm(_Counted, RadiomicsGLCM):
    symmetricalGLCM = True  # noqa: N815

    def _calculateMatrix(self, voxelCoordinates: None = None) -> Floats:  # noqa: N802, N803, ARG002
        counts = self.matrices.glcm[:, self.present][:, :, self.present].astype(np.float64)
        counts += counts.transpose(0, 2, 1)
        totals = counts.sum(axis=(1, 2))
        counts = counts[totals > 0] / totals[totals > 0, None, None]
        return np.ascontiguousarray(counts.transpose(1, 2, 0))[None]


class _Glrlm(_Counted, RadiomicsGLRLM):
    def _calculateMatrix(self, voxelCoordinates: None = None) -> Floats:  # noqa: N802, N803, ARG002
        kept = [a for a in range(len(self.matrices.glrlm)) if self._meets_twice(a)]
        counts = self.matrices.glrlm[kept][:, self.present].astype(np.float64)
        self.coefficients["Nr"] = counts.sum(axis=(1, 2))[None]
        return np.ascontiguousarray(counts.transpose(1, 2, 0))[None]

    def _meets_twice(self, direction: int) -> bool:
        return bool(self.matrices.glcm[direction].any()) or lines_with_two(self.levels, direction)


class _Glszm(_Counted, RadiomicsGLSZM):
    """PyRadiomics lays out a column for each size up to the largest zone (gigabytes) and then drops the empty ones."""

    def _calculateMatrix(self, voxelCoordinates: None = None) -> Floats:  # noqa: N802, N803, ARG002
        self.sizes, column = np.unique(self.matrices.zone_size, return_inverse=True)
        row = np.searchsorted(self.present + 1, self.matrices.zone_level)
        cells = np.bincount(row * len(self.sizes) + column, minlength=len(self.present) * len(self.sizes))
        return cells.reshape(1, len(self.present), len(self.sizes)).astype(np.float64)

    def _calculateCoefficients(self) -> None:  # noqa: N802
        by_size = self.P_glszm.sum(axis=1)
        sizes = self.sizes.astype(np.float64)
        self.coefficients.update(
            Np=(by_size * sizes).sum(axis=1),
            Nz=by_size.sum(axis=1),
            ps=by_size,
            pg=self.P_glszm.sum(axis=2),
            ivector=self.coefficients["grayLevels"].astype(np.float64),
            jvector=sizes,
        )


class _Gldm(_Counted, RadiomicsGLDM):
    def _calculateMatrix(self, voxelCoordinates: None = None) -> Floats:  # noqa: N802, N803, ARG002
        counts = self.matrices.gldm[self.present].astype(np.float64)
        sizes = np.flatnonzero(counts.sum(axis=0))
        counts = counts[:, sizes]
        self.coefficients.update(
            Nz=counts.sum(keepdims=True)[0],
            pd=counts.sum(axis=0)[None],
            pg=counts.sum(axis=1)[None],
            ivector=self.coefficients["grayLevels"].astype(np.float64),
            jvector=sizes + 1.0,
        )
        return counts[None]


class _Ngtdm(_Counted, RadiomicsNGTDM):
    def _calculateMatrix(self, voxelCoordinates: None = None) -> Floats:  # noqa: N802, N803, ARG002
        voxels = self.matrices.gldm.sum(axis=1)[self.present]
        return np.stack([voxels, self.matrices.ngtdm_sum[self.present], self.present + 1.0], axis=1)[None]


CLASSES = {"glcm": _Glcm, "glrlm": _Glrlm, "glszm": _Glszm, "gldm": _Gldm, "ngtdm": _Ngtdm}


def compute(name: str, matrices: Matrices, levels: Levels, features: Sequence[str]) -> dict[str, float]:
    """Features of one class (`glcm`, `glrlm`, `glszm`, `gldm`, `ngtdm`); no features named: all but deprecated ones."""
    formulas = CLASSES[name](matrices, levels)
    for feature in features:
        formulas.enableFeatureByName(feature)
    return {feature: float(value) for feature, value in formulas.execute().items()}
