"""Why a study was refused, in sentences."""

from dicomnode.analysis.findings import Findings
from dicomnode.words.numerals import plural


def reasons(findings: Findings) -> list[str]:
    """One sentence for each series that was rejected; one for the study where there was none."""
    if not findings.rejected:
        return ["No series of this study could be analysed."]
    return [
        f"Series {r.series_uid} ({r.modality or 'no modality'}, {plural(r.slices, 'image')}): "
        + ("; ".join(reason.text for reason in r.reasons) or "reason not recorded")
        for r in findings.rejected
    ]
