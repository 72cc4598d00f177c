"""The IBSI digital phantom's consensus values through our call of PyRadiomics (IBSI reference manual, configuration of
the digital phantom: no resampling, grey levels as they are, three-dimensional features averaged over directions)."""

import csv
import math
from pathlib import Path

import pytest
import SimpleITK as sitk

from dicomnode.analysis.radiomics.extract import DEFAULT_SETTINGS, extract_image

#: PyRadiomics' name: IBSI's name.
NAMES = {
    "shape": {
        "MeshVolume": "morph_volume",
        "VoxelVolume": "morph_vol_approx",
        "SurfaceArea": "morph_area_mesh",
        "SurfaceVolumeRatio": "morph_av",
        "Sphericity": "morph_sphericity",
        "Maximum3DDiameter": "morph_diam",
        "MajorAxisLength": "morph_pca_maj_axis",
        "MinorAxisLength": "morph_pca_min_axis",
        "LeastAxisLength": "morph_pca_least_axis",
        "Elongation": "morph_pca_elongation",
        "Flatness": "morph_pca_flatness",
    },
    "firstorder": {
        "Mean": "stat_mean",
        "Variance": "stat_var",
        "Skewness": "stat_skew",
        "Kurtosis": "stat_kurt",
        "Median": "stat_median",
        "Minimum": "stat_min",
        "10Percentile": "stat_p10",
        "90Percentile": "stat_p90",
        "Maximum": "stat_max",
        "InterquartileRange": "stat_iqr",
        "Range": "stat_range",
        "MeanAbsoluteDeviation": "stat_mad",
        "RobustMeanAbsoluteDeviation": "stat_rmad",
        "Energy": "stat_energy",
        "RootMeanSquared": "stat_rms",
        "Entropy": "ih_entropy",
        "Uniformity": "ih_uniformity",
    },
    "glcm": {
        "MaximumProbability": "cm_joint_max_3D_avg",
        "JointAverage": "cm_joint_avg_3D_avg",
        "SumSquares": "cm_joint_var_3D_avg",
        "JointEntropy": "cm_joint_entr_3D_avg",
        "DifferenceAverage": "cm_diff_avg_3D_avg",
        "DifferenceVariance": "cm_diff_var_3D_avg",
        "DifferenceEntropy": "cm_diff_entr_3D_avg",
        "SumAverage": "cm_sum_avg_3D_avg",
        "SumEntropy": "cm_sum_entr_3D_avg",
        "JointEnergy": "cm_energy_3D_avg",
        "Contrast": "cm_contrast_3D_avg",
        "Id": "cm_inv_diff_3D_avg",
        "Idn": "cm_inv_diff_norm_3D_avg",
        "Idm": "cm_inv_diff_mom_3D_avg",
        "Idmn": "cm_inv_diff_mom_norm_3D_avg",
        "InverseVariance": "cm_inv_var_3D_avg",
        "Correlation": "cm_corr_3D_avg",
        "Autocorrelation": "cm_auto_corr_3D_avg",
        "ClusterTendency": "cm_clust_tend_3D_avg",
        "ClusterShade": "cm_clust_shade_3D_avg",
        "ClusterProminence": "cm_clust_prom_3D_avg",
        "Imc1": "cm_info_corr1_3D_avg",
        "Imc2": "cm_info_corr2_3D_avg",
    },
    "glrlm": {
        "ShortRunEmphasis": "rlm_sre_3D_avg",
        "LongRunEmphasis": "rlm_lre_3D_avg",
        "LowGrayLevelRunEmphasis": "rlm_lgre_3D_avg",
        "HighGrayLevelRunEmphasis": "rlm_hgre_3D_avg",
        "ShortRunLowGrayLevelEmphasis": "rlm_srlge_3D_avg",
        "ShortRunHighGrayLevelEmphasis": "rlm_srhge_3D_avg",
        "LongRunLowGrayLevelEmphasis": "rlm_lrlge_3D_avg",
        "LongRunHighGrayLevelEmphasis": "rlm_lrhge_3D_avg",
        "GrayLevelNonUniformity": "rlm_glnu_3D_avg",
        "GrayLevelNonUniformityNormalized": "rlm_glnu_norm_3D_avg",
        "RunLengthNonUniformity": "rlm_rlnu_3D_avg",
        "RunLengthNonUniformityNormalized": "rlm_rlnu_norm_3D_avg",
        "RunPercentage": "rlm_r_perc_3D_avg",
        "GrayLevelVariance": "rlm_gl_var_3D_avg",
        "RunVariance": "rlm_rl_var_3D_avg",
        "RunEntropy": "rlm_rl_entr_3D_avg",
    },
    "glszm": {
        "SmallAreaEmphasis": "szm_sze_3D",
        "LargeAreaEmphasis": "szm_lze_3D",
        "LowGrayLevelZoneEmphasis": "szm_lgze_3D",
        "HighGrayLevelZoneEmphasis": "szm_hgze_3D",
        "SmallAreaLowGrayLevelEmphasis": "szm_szlge_3D",
        "SmallAreaHighGrayLevelEmphasis": "szm_szhge_3D",
        "LargeAreaLowGrayLevelEmphasis": "szm_lzlge_3D",
        "LargeAreaHighGrayLevelEmphasis": "szm_lzhge_3D",
        "GrayLevelNonUniformity": "szm_glnu_3D",
        "GrayLevelNonUniformityNormalized": "szm_glnu_norm_3D",
        "SizeZoneNonUniformity": "szm_zsnu_3D",
        "SizeZoneNonUniformityNormalized": "szm_zsnu_norm_3D",
        "ZonePercentage": "szm_z_perc_3D",
        "GrayLevelVariance": "szm_gl_var_3D",
        "ZoneVariance": "szm_zs_var_3D",
        "ZoneEntropy": "szm_zs_entr_3D",
    },
    # IBSI's neighbouring grey level dependence matrix; its "low/high dependence" is PyRadiomics' "small/large".
    "gldm": {
        "SmallDependenceEmphasis": "ngl_lde_3D",
        "LargeDependenceEmphasis": "ngl_hde_3D",
        "LowGrayLevelEmphasis": "ngl_lgce_3D",
        "HighGrayLevelEmphasis": "ngl_hgce_3D",
        "SmallDependenceLowGrayLevelEmphasis": "ngl_ldlge_3D",
        "SmallDependenceHighGrayLevelEmphasis": "ngl_ldhge_3D",
        "LargeDependenceLowGrayLevelEmphasis": "ngl_hdlge_3D",
        "LargeDependenceHighGrayLevelEmphasis": "ngl_hdhge_3D",
        "GrayLevelNonUniformity": "ngl_glnu_3D",
        "DependenceNonUniformity": "ngl_dcnu_3D",
        "DependenceNonUniformityNormalized": "ngl_dcnu_norm_3D",
        "GrayLevelVariance": "ngl_gl_var_3D",
        "DependenceVariance": "ngl_dc_var_3D",
        "DependenceEntropy": "ngl_dc_entr_3D",
    },
    "ngtdm": {
        "Coarseness": "ngt_coarseness_3D",
        "Contrast": "ngt_contrast_3D",
        "Busyness": "ngt_busyness_3D",
        "Complexity": "ngt_complexity_3D",
        "Strength": "ngt_strength_3D",
    },
}
#: Defined otherwise: PyRadiomics' value minus IBSI's.
OFFSET = {"stat_kurt": 3.0}
#: The consensus divides the covariance of the 74 voxels' positions by 73, PyRadiomics by 74.
FACTOR = dict.fromkeys(("morph_pca_maj_axis", "morph_pca_min_axis", "morph_pca_least_axis"), math.sqrt(73 / 74))
#: Features of PyRadiomics that IBSI's table does not have.
NOT_IBSI = {
    "original_shape_Maximum2DDiameterColumn",
    "original_shape_Maximum2DDiameterRow",
    "original_shape_Maximum2DDiameterSlice",
    "original_firstorder_TotalEnergy",
    "original_glcm_MCC",
}
PAIRS = {f"original_{group}_{ours}": theirs for group, names in NAMES.items() for ours, theirs in names.items()}


@pytest.fixture(scope="module")
def consensus(data: Path) -> dict[str, tuple[float, float]]:
    """Reference value and tolerance by IBSI's name."""
    with (data / "ibsi_digital" / "ibsi_1_dig_phantom.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter=";") if row["reference value"]]
    return {row["tag"]: (float(row["reference value"]), float(row["tolerance"])) for row in rows}


@pytest.fixture(scope="module")
def found(data: Path) -> dict[str, float]:
    folder = data / "ibsi_digital" / "nifti"
    image, mask = sitk.ReadImage(str(folder / "image/phantom.nii.gz")), sitk.ReadImage(str(folder / "mask/mask.nii.gz"))
    settings = {"featureClass": DEFAULT_SETTINGS["featureClass"], "setting": {"binWidth": 1, "label": 1}}
    return extract_image(image, mask, settings)


def test_each_feature_is_compared_or_named_as_unknown_to_ibsi(found: dict[str, float]) -> None:
    assert found.keys() == PAIRS.keys() | NOT_IBSI
    assert len(PAIRS) == 102


@pytest.mark.parametrize("name", PAIRS)
def test_consensus_value(name: str, found: dict[str, float], consensus: dict[str, tuple[float, float]]) -> None:
    theirs = PAIRS[name]
    value, tolerance = consensus[theirs]
    # The consensus is printed with three significant digits: half of the last one is rounding.
    rounding = 0.5 * 10.0 ** (math.floor(math.log10(abs(value))) - 2)
    as_theirs = found[name] / FACTOR.get(theirs, 1.0) - OFFSET.get(theirs, 0.0)
    assert as_theirs == pytest.approx(value, abs=tolerance + rounding * (1 + 1e-9))
