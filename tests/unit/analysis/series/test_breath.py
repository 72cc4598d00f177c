"""Breath-hold words."""

import pytest

from dicomnode.analysis.series import breath
from tests.helpers.ct_files import ct_series

OUT = [
    "Thorax EXP 1.0",
    "Lunge Exspiration",
    "Thorax in Expiration",
    "Poumons expiration forcée",
    "torace espirazione",
    "Tórax espiración",
    "Tórax expiração",
    "expiratie",
    "wydech",
    "výdech",
    "на выдохе",
    "呼気 胸部",
    "utandning",
    "Ausatmung",
]
IN = ["Thorax INSP", "Inspiration 1mm", "torace inspirazione", "Einatmung", "wdech", "на вдохе", "吸気", "inandning"]
NEITHER = ["", "Thorax INSP/EXP", "Lung 1.0", "export to PACS", "Experimental", "exposure 3", "Inspection"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [(w, "expiration") for w in OUT] + [(w, "inspiration") for w in IN] + [(w, "unknown") for w in NEITHER],
)
def test_words(words: str, expected: str) -> None:
    [first, *_] = ct_series(SpecificCharacterSet="ISO_IR 192", SeriesDescription=words)
    assert breath.of(first) == expected


def test_the_series_outweighs_the_protocol_and_the_image_both() -> None:
    named = {"ProtocolName": "Thorax Exp", "SeriesDescription": "Insp 1.0"}
    assert breath.of(ct_series(**named)[0]) == "inspiration"
    assert breath.of(ct_series(**named, ImageComments="expiratory")[0]) == "expiration"
    assert breath.of(ct_series(ProtocolName="Thorax Insp + Exp")[0]) == "unknown"
