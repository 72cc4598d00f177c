"""«Not analysed, because …» as a short structured report, so that the reader at the PACS is not left waiting.

Also a TID 1500 document, though it holds no measurement: row 12 (Qualitative Evaluations) alone satisfies the template,
and whoever looks for the node's results finds results and refusals in one place. It never holds an invented number.
"""

from pydicom.dataset import Dataset

from dicomnode.analysis.findings import Findings
from dicomnode.report import codes
from dicomnode.report.context import REFUSAL, Context
from dicomnode.report.refused import reasons
from dicomnode.report.sr import frame


def encode(header: Dataset, findings: Findings, context: Context) -> Dataset:
    """Return the refusal of one study.

    Args:
        header: any image of the study; it gives patient, study and order.
        findings: with status "refused". A series that was chosen and then failed makes the outcome «failed»,
            otherwise it is «not attempted».
        context: the result's circumstances.

    Raises:
        ValueError: the findings are not a refusal.
    """
    if findings.status != "refused":
        raise ValueError(f"no refusal to encode: the findings are {findings.status}")
    outcome = codes.NOT_ATTEMPTED if findings.series is None else codes.FAILED
    evaluations = [
        frame.summary(outcome),
        *frame.preamble(findings),
        *frame.series_used(findings),
        *(frame.text(codes.REASON, sentence) for sentence in reasons(findings)),
    ]
    return frame.document(REFUSAL, [header], findings, context, evaluations=evaluations)
