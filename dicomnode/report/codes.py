"""Every code that the objects use (PS3.16), and the published list of the private ones."""

from collections.abc import Mapping
from typing import Final

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicomnode.analysis.findings import SegmenterFamily
from dicomnode.words.numerals import plural

SCHEME = "99DICOMNODE"
#: 2.25 and the UUID 13b42df8-c8e6-4861-b1d5-85ba9df69a68, drawn once for this project: it names the scheme for good.
SCHEME_UID = "2.25.154245014579175779637386531041943105612"
SCHEME_VERSION = "1"

LUNG = Code("39607008", "SCT", "Lung")
# CID 6126 and 7151; the side is a modifier of its own, as for the lungs (SNOMED's codes of one-sided lobes are in
# neither context group, but for the middle lobe, which there is on the right only).
UPPER_LOBE = Code("45653009", "SCT", "Upper lobe of lung")
MIDDLE_LOBE = Code("72481006", "SCT", "Middle lobe of right lung")
LOWER_LOBE = Code("90572001", "SCT", "Lower lobe of lung")
RIGHT = Code("24028007", "SCT", "Right")
LEFT = Code("7771000", "SCT", "Left")
BILATERAL = Code("51440002", "SCT", "Bilateral")
ANATOMICAL_STRUCTURE = Code("91723000", "SCT", "Anatomical Structure")
# CID 7150. Not «morphologically abnormal»: what lies between two attenuations may be a vessel.
SPATIAL_CONCEPT = Code("309825002", "SCT", "Spatial and Relational Concept")

VOLUME = Code("118565006", "SCT", "Volume")
SUM_OF_VOXELS = Code("126030", "DCM", "Sum of segmented voxel method for volume")
ATTENUATION = Code("112031", "DCM", "Attenuation Coefficient")
MEAN = Code("373098007", "SCT", "Mean")
STANDARD_DEVIATION = Code("386136009", "SCT", "Standard Deviation")
MEDIAN = Code("373099004", "SCT", "Median")
SKEWNESS = Code("126051", "DCM", "Skewness")
KURTOSIS = Code("126052", "DCM", "Kurtosis")

CUBIC_CENTIMETRE = Code("cm3", "UCUM", "cubic centimeter")
HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
PERCENT = Code("%", "UCUM", "Percent")
NO_UNITS = Code("1", "UCUM", "no units")

ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
MORPHOLOGICAL_OPERATIONS = Code("123104", "DCM", "Morphological Operations")
#: CID 7162, by how a segmenter works.
ALGORITHM_FAMILIES: Final[Mapping[SegmenterFamily, Code]] = {
    "network": ARTIFICIAL_INTELLIGENCE,
    "morphology": MORPHOLOGICAL_OPERATIONS,
}
PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")
DEVICE = Code("121007", "DCM", "Device")
ENGLISH = Code("en-US", "RFC5646", "English (United States)")
IMAGING_MEASUREMENT_REPORT = Code("126000", "DCM", "Imaging Measurement Report")
IMAGING_MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
PROCEDURE_REPORTED = Code("121058", "DCM", "Procedure reported")
# CID 100 is extensible (baseline); PixelMed's validator calls every code that it does not hold an error, this one too.
CT_OF_CHEST = Code("24627-2", "LN", "CT Chest")
EQUIVALENT_MEANING = Code("121050", "DCM", "Equivalent Meaning of Concept Name")
ILLUSTRATION_OF_ROI = Code("121200", "DCM", "Illustration of ROI")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")

SUMMARY_OF_ANALYSES = Code("111065", "DCM", "Summary of Analyses")
SUCCEEDED = Code("111222", "DCM", "Succeeded")
PARTIALLY_SUCCEEDED = Code("111223", "DCM", "Partially Succeeded")
FAILED = Code("111224", "DCM", "Failed")
NOT_ATTEMPTED = Code("111225", "DCM", "Not Attempted")

#: Titles of rejection notes (CID 7010), by code value.
REJECTIONS: Final[Mapping[str, Code]] = {
    "113001": Code("113001", "DCM", "Rejected for Quality Reasons"),
    "113037": Code("113037", "DCM", "Rejected for Patient Safety Reasons"),
    "113039": Code("113039", "DCM", "Data Retention Policy Expired"),
}


def _private(value: str, meaning: str) -> Code:
    return Code(value, SCHEME, meaning)


PERCENTILE_5 = _private("ATTP05", "Attenuation, 5th percentile of the voxels")
PERCENTILE_15 = _private("ATTP15", "Attenuation, 15th percentile of the voxels")
PERCENTILE_85 = _private("ATTP85", "Attenuation, 85th percentile of the voxels")
PERCENTILE_95 = _private("ATTP95", "Attenuation, 95th percentile of the voxels")
HIGH_ATTENUATION = _private("HAA600_250", "Percent of lung volume between -600 and -250 HU")
DENSE = _private("DENSE_250", "Percent of lung volume above -250 HU")
LEFT_OUT = _private("LEFTOUT", "Volume inside the hull of the lungs, outside their segmentation")
LOW_ATTENUATION = _private("LAA950", "Percent of lung volume below -950 HU")
HIGH_ATTENUATION_AREA = _private("HAAREA", "Area between -600 and -250 HU inside the lungs")
LOW_ATTENUATION_AREA = _private("LAAREA", "Area below -950 HU inside the lungs")
# The part of the lungs is within the concept: a measurement group must refer to a segment (TID 1411), and these parts
# have none.
REGIONS = {
    "upper_third": "upper third of the lungs",
    "middle_third": "middle third of the lungs",
    "lower_third": "lower third of the lungs",
    "rim": "outer 20 mm of the lungs",
    "core": "lungs without the outer 20 mm",
    "lower_third_rim": "outer 20 mm of lower third of lungs",
}
_SHORT = {
    "upper_third": "UPPER",
    "middle_third": "MIDDLE",
    "lower_third": "LOWER",
    "rim": "RIM",
    "core": "CORE",
    "lower_third_rim": "LOWRIM",
}
REGIONAL_HIGH_ATTENUATION = {
    region: _private(f"HAA_{_SHORT[region]}", f"% between -600 and -250 HU, {words}")
    for region, words in REGIONS.items()
}
REGIONAL_LOW_ATTENUATION = {
    region: _private(f"LAA950_{_SHORT[region]}", f"% below -950 HU, {words}") for region, words in REGIONS.items()
}
REGIONAL_MEAN = {
    region: _private(f"MEAN_{_SHORT[region]}", f"Mean attenuation, {words}") for region, words in REGIONS.items()
}
COMPARED_WITH = _private("COMPAREDWITH", "Prior study compared with, and comparability")
PRIOR_SCAN = _private("EARLIERSCAN", "Prior scan of the same patient, and its measurements")
CHANGE_IN_WORDS = _private("CHANGEWORDS", "Change since the prior study, in words")
REPEATABILITY = _private("REPEATABILITY", "Published scan-rescan repeatability")
CHANGE_INTERVAL = _private("CHG_INTERVAL", "Time since the prior study")
PER_CENT_A_YEAR = Code("%/a", "UCUM", "Percent per year")
#: By the name of the measure in the findings: change, change per year, and their units.
CHANGE = {
    "volume_ml": (
        _private("CHG_VOLUME", "Change in lung volume since the prior study"),
        _private("CHY_VOLUME", "Change in lung volume per year"),
        CUBIC_CENTIMETRE,
        Code("cm3/a", "UCUM", "cubic centimeter per year"),
    ),
    "haa_percent": (
        _private("CHG_HAA", "Change in % of lungs -600 to -250 HU, percentage points"),
        _private("CHY_HAA", "Change in % of lungs -600 to -250 HU, points per year"),
        PERCENT,
        PER_CENT_A_YEAR,
    ),
    "lower_third_rim.haa_percent": (
        _private("CHG_HAA_LOWRIM", "Change in % -600 to -250 HU, basal 20 mm rim of lungs, points"),
        _private("CHY_HAA_LOWRIM", "Change in % -600 to -250 HU, basal 20 mm rim, points per year"),
        PERCENT,
        PER_CENT_A_YEAR,
    ),
    "laa950_percent": (
        _private("CHG_LAA950", "Change in % of lungs below -950 HU, percentage points"),
        _private("CHY_LAA950", "Change in % of lungs below -950 HU, points per year"),
        PERCENT,
        PER_CENT_A_YEAR,
    ),
    "mean_hu": (
        _private("CHG_MEAN", "Change in mean lung attenuation since the prior study"),
        _private("CHY_MEAN", "Change in mean lung attenuation per year"),
        HOUNSFIELD,
        Code("[hnsf'U]/a", "UCUM", "Hounsfield unit per year"),
    ),
}
DAY = Code("d", "UCUM", "day")


# Horizon and bound are part of the concept: viewers drop modifiers, and PixelMed's validator reports errors for the
# uncertainty items of TID 310.
def mortality(years: int) -> tuple[Code, Code, Code]:
    """Return the codes of a horizon's probability and of both ends of the models' spread.

    The bundle declares the horizon.
    """
    within = plural(years, "year")
    return (
        _private(f"MORT{years}Y", f"Probability of all-cause death within {within}"),
        _private(f"MORT{years}Y_LOW", f"Low end of model spread, death within {within}"),
        _private(f"MORT{years}Y_HIGH", f"High end of model spread, death within {within}"),
    )


#: Of the horizons that a run takes where its settings state none.
MORTALITY = {years: mortality(years) for years in (1, 3, 5)}
POPULATION_PERCENTILE = _private("POPPERCENTILE", "Percentile of scan's distance among model's training patients")
INTERVAL = _private("INTERVAL", "Model spread of the predicted risk, explained")
RISK_IN_WORDS = _private("RISKWORDS", "Predicted risk, in words")
FLAG = _private("QUALITYFLAG", "Quality flag on input or result")
REASON = _private("REFUSALREASON", "Reason for not analysing")
SERIES_USED = _private("SERIESUSED", "Analysed series, and why it was chosen")
NOTE = _private("NOTE", "Remark on this report")
LIMITATIONS = _private("USELIMIT", "Limitations of use")

PRIVATE = (
    PERCENTILE_5,
    PERCENTILE_15,
    PERCENTILE_85,
    PERCENTILE_95,
    HIGH_ATTENUATION,
    DENSE,
    LEFT_OUT,
    LOW_ATTENUATION,
    HIGH_ATTENUATION_AREA,
    LOW_ATTENUATION_AREA,
    *REGIONAL_HIGH_ATTENUATION.values(),
    *REGIONAL_LOW_ATTENUATION.values(),
    *REGIONAL_MEAN.values(),
    COMPARED_WITH,
    PRIOR_SCAN,
    CHANGE_IN_WORDS,
    REPEATABILITY,
    CHANGE_INTERVAL,
    *(code for entry in CHANGE.values() for code in entry[:2]),
    *(code for triple in MORTALITY.values() for code in triple),
    POPULATION_PERCENTILE,
    INTERVAL,
    RISK_IN_WORDS,
    FLAG,
    REASON,
    SERIES_USED,
    NOTE,
    LIMITATIONS,
)


def item(code: Code) -> Dataset:
    """Return the code as an item of a code sequence (PS3.3 8.8)."""
    dataset = Dataset()
    dataset.CodeValue = code.value
    dataset.CodingSchemeDesignator = code.scheme_designator
    dataset.CodeMeaning = code.meaning
    return dataset


def scheme_identification() -> Dataset:
    """Return the item of Coding Scheme Identification Sequence that names the private scheme (PS3.3 C.12.1)."""
    dataset = Dataset()
    dataset.CodingSchemeDesignator = SCHEME
    dataset.CodingSchemeUID = SCHEME_UID
    dataset.CodingSchemeName = "dicomnode private concepts"
    dataset.CodingSchemeVersion = SCHEME_VERSION
    dataset.CodingSchemeResponsibleOrganization = "dicomnode project"
    return dataset


def published() -> str:
    """Return the text of docs/radiologist/private-codes.md: the private codes, as this module has them."""
    rows = "".join(f"| `{code.value}` | {code.meaning} |\n" for code in PRIVATE)
    return (
        "# Private codes\n\n"
        "Concepts for which DICOM PS3.16 has no code. Generated from `dicomnode/report/codes.py`; a test compares.\n\n"
        f"Coding scheme designator `{SCHEME}`, UID `{SCHEME_UID}`, version {SCHEME_VERSION}.\n\n"
        f"| code value | code meaning |\n|---|---|\n{rows}"
    )
