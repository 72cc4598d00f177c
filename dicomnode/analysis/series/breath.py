"""Inspiration or expiration, as far as the headers say so, in the words of many languages."""

import re
from typing import Literal

from pydicom import Dataset

from dicomnode.analysis.series.headers import plain, text

Breath = Literal["inspiration", "expiration", "unknown"]

#: English and Romance «exp…», German «Exspiration», Italian and Iberian «espir…», Nordic «ekspir…», and so on. Whole
#: words where a beginning would take in others: «exp», but not «export», «experimental», «exposure».
EXPIRATION = re.compile(
    r"\b(exp|expi|expir\w*|exsp|exspi\w*|exhal\w*|ausatm\w*|espir\w*|ekspir\w*|uitadem\w*|wydech\w*|vydech\w*"
    r"|(dyn|end|lung|thorax|chest|hr|hrct)exp(ir\w*)?|exp(thin|hr|hrct|lung|thorax|chest)"
    r"|utandning\w*|uloshengit\w*|kilegz\w*|izdah\w*|выдох\w*|εκπνο\w*|in ex|residual vol\w*|frc)\b|呼気|呼气|呼氣|호기"
)
INSPIRATION = re.compile(
    r"\b(insp|inspi\w*|inhal\w*|einatm\w*|ispir\w*|inadem\w*|wdech\w*|nadech\w*|inandning\w*|sisaanhengit\w*"
    r"|belegz\w*|udah\w*|вдох\w*|εισπνο\w*|tlc|total lung capacity)\b|吸気|吸气|吸氣|흡기"
)
#: The most particular first: what describes the image itself outweighs the protocol of the whole examination.
KEYWORDS = ("ImageComments", "SeriesDescription", "AcquisitionProtocolDescription", "ProtocolName")


def of(dataset: Dataset) -> Breath:
    """Return what the first text says that names one of the two and not the other («INSP/EXP» says nothing)."""
    for keyword in KEYWORDS:
        words = plain(text(dataset, keyword))
        out, into = bool(EXPIRATION.search(words)), bool(INSPIRATION.search(words))
        if out != into:
            return "expiration" if out else "inspiration"
    return "unknown"
