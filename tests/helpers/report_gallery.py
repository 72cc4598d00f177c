"""Draws page and PDF of fifteen cases, in colour and grey, to look at: `python -m tests.helpers.report_gallery OUT`.

Images: the demo's phantom with a crude mask, or an axial series of one's own (`OUT SERIES`), whose pictures stay out of
the repository; the numbers are made up.
"""

import io
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
import typst
from numpy.typing import NDArray
from PIL import Image

from dicomnode.analysis.arrays import Volume
from dicomnode.analysis.findings import Findings, Flag, Horizon, Risk, Severity, VolumeMl
from dicomnode.demo import study
from dicomnode.report.page import summary, views
from dicomnode.report.pdf import typesetting
from tests.helpers import report_cases as cases

_AXES = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
_TWELVE: tuple[tuple[str, Severity, str], ...] = (
    ("order-ambiguous", "warning", "Several worklist orders match this study; none was linked."),
    ("priors-late", "warning", "Prior scans did not arrive in time; an updated report will follow when they do."),
    ("order-from-worklist", "info", "The images name no order: it was taken from the worklist."),
    ("cut-off-base", "error", "The lung bases are cut off: the lowest slice still shows 62 cm2 of lung."),
    ("sides", "error", "The left lung has a third of the volume of the right one; check the outlines."),
    ("contrast", "warning", "Contrast agent was given: attenuation measures are higher than without."),
    ("thick", "warning", "Slices are 4.0 mm apart, more than 1.5 mm: not comparable with percentages of thin slices."),
    ("kernel", "warning", "Sharp kernel (B70f): noise widens the distribution of attenuation; LAA-950 is too high."),
    ("inspiration", "warning", "The scan was probably made in expiration; high attenuation is too high."),
    ("metal", "warning", "Metal in the scan: streaks raise and lower attenuation nearby."),
    (
        "identity-verbatim",
        "warning",
        "The Accession Number breaks its value representation; it is repeated as it came.",
    ),
    ("values-repaired", "info", "Values of these attributes were repaired: PixelSpacing, SliceThickness."),
)


@dataclass(frozen=True)
class Shown:
    """One case. `header`: attributes of the images, which name the patient."""

    name: str
    findings: Findings
    views: views.Views | None
    header: dict[str, Any] = field(default_factory=dict)


def gallery(series: Path) -> Iterator[Shown]:
    """Yield the cases, of the images of an axial series."""
    headers, hu = cases.read_series(series)
    labels = cases.threshold_lungs(hu)
    usual, seen = _usual(headers), _views(hu, labels, headers)
    yield Shown("no-flag", replace(usual, flags=()), seen)
    demo = replace(usual, risk=_risk((0.1, 0.05, 0.2), (0.2, 0.1, 0.4), (0.3, 0.15, 0.6), demo=True))
    yield Shown("twelve-flags", replace(demo, flags=tuple(Flag(c, s, t) for c, s, t in _TWELVE)), seen)
    yield Shown("one-lung", _one_lung(usual), _views(hu, np.where(labels == 2, labels, 0).astype(np.uint8), headers))
    yield Shown("risk-low", replace(usual, risk=_risk((0.002, 0.001, 0.004), (0.004, 0, 0.01), (0.02, 0, 0.1))), seen)
    yield Shown("risk-high", replace(usual, risk=_risk((0.93, 0.8, 0.97), (0.998, 0.98, 1), (0.999, 0.99, 1))), seen)
    japanese = {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう"}
    yield Shown("japanese", usual, seen, {**japanese, "StudyDescription": "CHEST"})
    yield Shown("arabic", usual, seen, {"PatientName": "القباني^لنزار^بن^توفيق", "PatientID": "W" * 64})
    yield Shown("no-prior-no-risk", replace(usual, risk=None), seen)
    yield Shown("five-priors", replace(usual, change=cases.changed(731), trend=cases.scanned_before(5, 731)), seen)
    yield Shown("refused", cases.refused(), None)
    tilt = Flag("tilt-resampled", "warning", "The gantry was tilted by 14 degrees: the images were resampled.")
    yield Shown("tilted", replace(usual, flags=(tilt,)), seen)
    cut = tuple(Flag(c, s, t) for c, s, t in _TWELVE if c == "cut-off-base")
    yield Shown("cut-off", replace(usual, flags=cut), _views(hu[12:], labels[12:], headers[12:]))
    thai = {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Srisuk^Somchai=ศรีสุข^สมชาย", "PatientID": "HN0001"}
    yield Shown("thai-letters", usual, seen, thai)
    wide = Flag(
        "change-scanner", "warning", f"The scanners differ: was {' '.join(['GE MEDICAL SYSTEMS'] * 3)}, now {'W' * 64}."
    )
    yield Shown(
        "capitals", replace(usual, flags=(wide,)), seen, {"PatientName": "W" * 64, "StudyDescription": "M" * 64}
    )
    long = _risk((0.2, 0.1, 0.3), (0.21, 0.1, 0.31), (0.6, 0.4, 0.8), years=(1, 2, 10))
    scanned = cases.scanned_before(2, 731)
    yield Shown("horizons", replace(usual, risk=long, change=cases.changed(731), trend=scanned), seen)


def _usual(headers: list[Any]) -> Findings:
    return cases.findings_of(headers, predicted=_risk((0.1, 0.05, 0.2), (0.2, 0.1, 0.4), (0.3, 0.15, 0.6)))


def _risk(*horizons: tuple[float, float, float], demo: bool = False, years: tuple[int, int, int] = (1, 3, 5)) -> Risk:
    known = tuple(Horizon(within, *one) for within, one in zip(years, horizons, strict=True))
    return replace(cases.risk("synthetic-demo" if demo else "research"), horizons=known)


def _one_lung(findings: Findings) -> Findings:
    assert findings.lungs is not None
    lungs = replace(findings.lungs, volume_ml=VolumeMl(2000.0, 2000.0, 0.0), left_out_ml=VolumeMl(5.0, 5.0, 0.0))
    return replace(findings, quantities={k: q for k, q in findings.quantities.items() if k != "right"}, lungs=lungs)


def _views(hu: NDArray[np.int16], labels: NDArray[np.uint8], headers: list[Any]) -> views.Views:
    series = cases.findings_of(headers).series
    assert series is not None
    return views.choose(Volume(hu, series.spacing_mm, (0.0, 0.0, 0.0), _AXES, ()), labels)


def draw(one: Shown, folder: Path) -> None:
    """Write the page, each page of the PDF, both in colour and grey, and the PDF."""
    if one.views is None:
        page = summary.refusal_picture(one.findings, "20260101")
    else:
        page = summary.picture(one.views, one.findings)
    header = cases.synthetic(1)[0]
    for keyword, value in one.header.items():
        setattr(header, keyword, value)
    header = cases.reread(header)
    pdf = typesetting.pdf_bytes(one.findings, cases.CONTEXT, header, one.views)
    (folder / f"{one.name}.pdf").write_bytes(pdf)
    pictures = {"page": Image.fromarray(page)}
    pictures |= {f"pdf{k}": p for k, p in enumerate(_pages(one, header), start=1)}
    for name, picture in pictures.items():
        picture.save(folder / f"{one.name}-{name}.png")
        picture.convert("L").save(folder / f"{one.name}-{name}-grey.png")


def _pages(one: Shown, header: Any) -> list[Image.Image]:
    """The PDF's pages as pictures, by the same typesetter."""
    drawn: list[bytes] = []
    real = typst.Compiler

    class Drawing:
        def __init__(self, **settings: Any) -> None:
            self.compiler = real(**settings)

        def compile(self, **_settings: Any) -> bytes:
            found = self.compiler.compile(format="png", ppi=110.0)
            drawn.extend(found if isinstance(found, list) else [found])  # type: ignore[list-item]
            return b""

    with mock.patch.object(typesetting.typst, "Compiler", Drawing):
        typesetting.pdf_bytes(one.findings, cases.CONTEXT, header, one.views)
    return [Image.open(io.BytesIO(png)).convert("RGB") for png in drawn]


#: What the docs show: from which pictures, so many beside each other, each so wide.
SHEETS: Final[dict[str, tuple[str, int, int]]] = {
    "pages.jpg": ("*-page.png", 4, 346),
    "pages-grey.jpg": ("t[iw]*-page-grey.png", 2, 566),
    "pdf.jpg": ("[ft]*s-pdf?.png", 4, 424),
}


def sheets(folder: Path) -> None:
    """Write small pictures of all that `draw` has written, side by side."""
    for name, (pattern, columns, width) in SHEETS.items():
        drawn = [Image.open(path).convert("RGB") for path in sorted(folder.glob(pattern))]
        small = [one.resize((width, one.height * width // one.width), Image.Resampling.LANCZOS) for one in drawn]
        height = max(one.height for one in small)
        whole = Image.new("RGB", (columns * width, -(-len(small) // columns) * height))
        for k, one in enumerate(small):
            whole.paste(one, (k % columns * width, k // columns * height))
        whole.save(folder / name, quality=85)


def _main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        given = [Path(word) for word in sys.argv[2:3]]
        axial = given or [path.parent for path in study.write(Path(folder)) if path.parent.name == "2-axial"]
        shown = list(gallery(axial[0]))
    for one in shown:
        draw(one, out)
    sheets(out)


if __name__ == "__main__":
    _main()
