"""Which series are analysed, as a site wants it: the limits and words that `suitability` and `series` judge by.

The defaults suit chest CT for interstitial lung disease. All patterns are regular expressions, searched in lower-case
text without accents (`kernels` and Image Type values excepted, which are compared as DICOM writes them).
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from dicomnode.analysis.series.kernels import Family

Contrast = Literal["allowed", "preferred", "refused"]

#: "Chest", "lung" and "thorax" as scanners, protocols and technologists spell them. `\b` is written where it matters:
#: Chinese, Japanese and Korean put no space before a word.
CHEST_WORDS = (
    r"\b(chest|thora|torac|torak|torax|lung|pulm|poumon|polmon|hrct|brust|pecho|ild|wholebody)",
    r"\b(longen|borst|keuhko|pluc|klatk|hrudn|plic|mellkas|tudo|gogus|akciger)",
    # With abdomen and pelvis, in short: CT CH/ABD/PEL, THX/ABD, CHST ABD PELV, TAP, CAP, C/A/P.
    r"\b(chst|chx|thx|thor|che?\b|(ch|th|tx) ?(abd|ab\b)|(ct|n)?cap\b|(ct|tdm)?tap\b|[ct] a p\b|ctpa\b)",
    r"\b(whole body|ganzkorper|corps entier|cuerpo entero|polytrauma)",
    r"\b(грудн|легк|θωρακ|πνευμον)",
    r"胸|肺|흉부|폐",
)
OTHER_WORDS = (
    r"\b(head|brain|skull|crani|cerebr|neck|sinus|orbit|dental|larynx|kopf|schadel|hals)",
    r"\b(abd|pelvi|becken|liver|kidney|renal|colon|urogra|prostate)",
    r"\b(spine|cspine|tspine|lspine|lumb|extrem|shoulder|elbow|wrist|femur|knee|ankle|foot)",
)


@dataclass(frozen=True)
class Rules:
    """What a series must be to be analysed, and what makes one better than another.

    Attributes:
        modalities: values of Modality that are taken.
        body_parts: patterns of which one in Series Description, Protocol Name, Body Part Examined or Study Description
            makes it a chest.
        other_body_parts: patterns that, without a word for the chest, make it something else.
        body_part_may_be_missing: take a series in which none of these words stands.
        max_degrees_from_axial: between the images' axes and the patient's.
        min_slices: least number of images.
        min_coverage_mm: least distance from the first slice to the last one.
        max_step_mm: largest mean distance between slices; None for no limit.
        max_thickness_mm: largest Slice Thickness; None for no limit.
        kernels: kernel families, the best first; a family that is not named is refused.
        contrast: whether a series with contrast medium is taken.
        lossy: whether a series compressed with loss is taken.
        invalid_identity: whether a series is taken whose patient or order is named by a value that breaks its VR:
            "verbatim" repeats it as it came, in objects that are invalid then.
        image_type_refused: values of Image Type that exclude a series, wherever they stand.
        image_type_required: values of Image Type that every image must carry.
        description_include: patterns of which the Series Description must match one; none asked for if empty.
        description_exclude: patterns that the Series Description must not match.
    """

    modalities: tuple[str, ...] = ("CT",)
    body_parts: tuple[str, ...] = CHEST_WORDS
    other_body_parts: tuple[str, ...] = OTHER_WORDS
    body_part_may_be_missing: bool = True
    max_degrees_from_axial: float = 20.0
    min_slices: int = 20
    min_coverage_mm: float = 150.0
    max_step_mm: float | None = None
    max_thickness_mm: float | None = None
    kernels: tuple[Family, ...] = ("lung", "medium", "unknown", "soft")
    contrast: Contrast = "allowed"
    lossy: Literal["allowed", "refused"] = "allowed"
    invalid_identity: Literal["refused", "verbatim"] = "refused"
    image_type_refused: tuple[str, ...] = ("LOCALIZER", "DERIVED")
    image_type_required: tuple[str, ...] = ()
    description_include: tuple[str, ...] = ()
    description_exclude: tuple[str, ...] = ()

    @property
    def stated(self) -> dict[str, Any]:
        """What decides which series is analysed, for a digest; a younger key only where it is not at its default."""
        younger = {"lossy": "allowed", "invalid_identity": "refused"}
        return {k: v for k, v in asdict(self).items() if k not in younger or v != younger[k]}


DEFAULT = Rules()
