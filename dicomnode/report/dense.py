"""Dense tissue inside the outlines of the lungs, and what they leave out; None where the findings do not have it."""

from dicomnode.analysis.findings import Findings


def dense_ml(findings: Findings, region: str) -> float | None:
    """Return the volume above -250 HU inside a region's outline: "lungs", "right" or "left"."""
    volume = volume_ml(findings, region)
    quantities = findings.quantities.get(region)
    percent = None if quantities is None else quantities.dense_percent
    return None if volume is None or percent is None else volume * percent / 100.0


def left_out_ml(findings: Findings, region: str) -> float | None:
    """Return the least volume between aerated lung and chest wall that is outside the outline."""
    left_out = None if findings.lungs is None else findings.lungs.left_out_ml
    if left_out is None:
        return None
    known = {"lungs": left_out.total, "right": left_out.right, "left": left_out.left}
    return known[region]


def volume_ml(findings: Findings, region: str) -> float | None:
    """Return a region's volume: of the lungs the outlines', of other regions as it was measured."""
    quantities = findings.quantities.get(region)
    if findings.lungs is None:
        return None
    volume = findings.lungs.volume_ml
    known = {"lungs": volume.total, "right": volume.right, "left": volume.left}
    return known.get(region, None if quantities is None else quantities.volume_ml)
