"""Disease painted into lungs that are known: what a segmenter finds of them can be measured.

The known lungs: planners' contours of a real patient (LUNG1-003), the mask of an undiseased part of a real scan
(LIDC-IDRI-0314: the segmenter's own before painting, so that only the disease is measured), and phantoms.

`python -m tests.helpers.painted [PART OF A NAME]` prints the table of docs/evidence/dense-lung.md.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pydicom
from PIL import Image, ImageDraw
from scipy import ndimage

from dicomnode.analysis.arrays import LEFT, RIGHT, Labels, Mask, Volume
from dicomnode.analysis.lungs import gap, segmenter
from dicomnode.analysis.lungs.body_air import distance
from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.phantom.phantom import Disease, chest
from dicomnode.analysis.series.selection import group, read_headers
from dicomnode.analysis.volume.load import load
from dicomnode.errors import RefusedError
from tests.helpers.prerequisites import dicom_files

CONTOURED, LIDC = "chest_lung1_003_contours", "chest_lidc0314_every4th"
Sides = tuple[int, ...]
BOTH: Sides = (RIGHT, LEFT)


@dataclass(frozen=True)
class Known:
    """A scan and its true lungs."""

    volume: Volume
    truth: Labels


@dataclass(frozen=True)
class Painted:
    """A scan with disease painted in: the lungs that should be found, and where the paint is.

    Attributes:
        fluid: of the paint, what is no lung.
    """

    volume: Volume
    truth: Labels
    paint: Mask
    fluid: Mask

    @property
    def paint_ml(self) -> float:
        """Millilitres of paint."""
        return float(np.count_nonzero(self.paint)) * self.volume.voxel_ml


@dataclass(frozen=True)
class Case:
    """One disease in one known pair of lungs."""

    scan: str
    name: str
    paint: Callable[[Known], Painted]

    def make(self) -> Painted:
        """The painted scan."""
        return self.paint(known(self.scan))


@cache
def known(scan: str) -> Known:
    """A real scan by its folder, or "phantom-N" with the seed N (fibrosis of some severity: "phantom-N-0.5")."""
    if scan.startswith("phantom"):
        _, seed, *severity = scan.split("-")
        disease = Disease.of_severity(float(severity[0])) if severity else None
        phantom = chest(int(seed), shape=(120, 200, 200), spacing_mm=(2.5, 1.8, 1.8), disease=disease)
        return Known(phantom.volume, phantom.labels)
    files = [f for f in dicom_files(scan) if f.name != "rtstruct.dcm"]
    (series,) = group(read_headers(files)[0])
    volume = load(series)
    if scan == CONTOURED:
        return Known(volume, _contoured(volume, pydicom.dcmread(files[0].parent / "rtstruct.dcm")))
    return Known(volume, ClassicalSegmenter()(volume))


def _contoured(volume: Volume, structures: pydicom.Dataset) -> Labels:
    names = {roi.ROINumber: roi.ROIName for roi in structures.StructureSetROISequence}
    labels = np.zeros(volume.hu.shape, np.uint8)
    dz, dy, dx = volume.spacing_mm
    for roi in structures.ROIContourSequence:
        side = {"Lung R": RIGHT, "Lung L": LEFT}.get(names[roi.ReferencedROINumber])
        for contour in roi.ContourSequence if side else ():
            points = np.array(contour.ContourData, float).reshape(-1, 3) - volume.origin_mm
            z = round(points[0, 2] / dz)
            image = Image.new("1", labels.shape[:0:-1])
            ImageDraw.Draw(image).polygon([(x / dx, y / dy) for x, y, _ in points], outline=1, fill=1)
            labels[z][np.array(image)] = side
    return labels


def _fill(scan: Known, where: Mask, hu: float, sd: float, fluid: bool = False, seed: int = 1) -> Painted:
    """`where` filled with noisy tissue, its edge as soft as a scanner's."""
    noise = np.random.default_rng(seed).normal(hu, sd, int(np.count_nonzero(where)))
    array = scan.volume.hu.astype(np.float32)
    array[where] = noise
    return _with(scan, array, where, fluid)


def _with(scan: Known, array: np.ndarray, where: Mask, fluid: bool = False) -> Painted:
    hu = np.clip(np.rint(array), -1024, 3071).astype(np.int16)
    truth = np.where(where, 0, scan.truth).astype(np.uint8) if fluid else scan.truth
    none = np.zeros_like(where)
    return Painted(replace(scan.volume, hu=hu), truth, where, where if fluid else none)


def _depth(scan: Known, side: int) -> np.ndarray:
    return distance(scan.truth != side, scan.volume.spacing_mm)


def _extent(lung: Mask, axis: int) -> tuple[int, int]:
    lines = np.flatnonzero(lung.any(axis=tuple(a for a in range(3) if a != axis)))
    return int(lines[0]), int(lines[-1])


def _axes(scan: Known) -> list[np.ndarray]:
    return list(np.ix_(*(np.arange(n) * s for n, s in zip(scan.truth.shape, scan.volume.spacing_mm, strict=True))))


def _lower(scan: Known, lung: Mask, part: float) -> Mask:
    """The slices of the lung's lowest part of its height."""
    first, last = _extent(lung, 0)
    return np.asarray(np.arange(lung.shape[0])[:, None, None] <= first + part * (last - first))


def _rim_mask(scan: Known, mm: float, part: float, sides: Sides) -> Mask:
    where = np.zeros(scan.truth.shape, bool)
    for side in sides:
        lung = scan.truth == side
        where |= lung & (_depth(scan, side) < mm) & _lower(scan, lung, part)
    return where


def rim(mm: float, hu: float, part: float = 1.0, sides: Sides = BOTH, sd: float = 20.0) -> Callable[[Known], Painted]:
    """Dense lung along the whole surface, in the lowest `part` of the height."""
    return lambda scan: _fill(scan, _rim_mask(scan, mm, part, sides), hu, sd)


def net(mm: float, part: float = 0.5, cysts: bool = False) -> Callable[[Known], Painted]:
    """Reticulation (dense lines), or honeycombing (cysts of air in dense walls), in a rim."""

    def paint(scan: Known) -> Painted:
        where = _rim_mask(scan, mm, part, BOTH)
        grain_mm = 4.0 if cysts else 3.0
        field = np.random.default_rng(2).standard_normal(where.shape, dtype=np.float32)
        field = ndimage.gaussian_filter(field, [grain_mm / s / 1.5 for s in scan.volume.spacing_mm])
        field /= field[where].std()
        array = scan.volume.hu.astype(np.float32)
        noise = np.random.default_rng(3).normal(0, 20, where.shape).astype(np.float32)
        if cysts:
            array[where] = np.where(field > 0.5, -900.0, 0.0)[where] + noise[where]
        else:
            array[where] = np.where(np.abs(field) < 0.5, 10.0, np.maximum(array, -800))[where] + noise[where]
        return _with(scan, array, where)

    return paint


def lobe(
    side: int, hu: float, bronchi: bool = False, upper: bool = False, sd: float = 20.0
) -> Callable[[Known], Painted]:
    """A consolidated lower (or upper) lobe, behind (before) a fissure that falls from back to front."""

    def paint(scan: Known) -> Painted:
        lung = scan.truth == side
        z, y, x = _axes(scan)
        z0, z1 = (i * scan.volume.spacing_mm[0] for i in _extent(lung, 0))
        y0, y1 = (i * scan.volume.spacing_mm[1] for i in _extent(lung, 1))
        behind = (y - y0) / (y1 - y0) - (z - z0) / (z1 - z0) > 0.08
        where = lung & (~behind if upper else behind)
        painted = _fill(scan, where, hu, sd)
        if not bronchi:
            return painted
        array = painted.volume.hu.astype(np.float32)
        array[where & _bronchi(scan, lung, (z, y, x))] = -850
        return _with(scan, array, where)

    return paint


def _bronchi(scan: Known, lung: Mask, axes: tuple[np.ndarray, ...]) -> Mask:
    """Straight air bronchograms of 4 mm from the hilum to everywhere."""
    rng = np.random.default_rng(4)
    lined = np.zeros(lung.shape, bool)
    points = np.argwhere(lung) * scan.volume.spacing_mm
    inner = points[:, 2].max() if points[:, 2].mean() < axes[2].mean() else points[:, 2].min()
    middle = points.mean(axis=0)
    start = np.array([middle[0], middle[1], 0.75 * inner + 0.25 * middle[2]])
    for end in points[rng.integers(0, len(points), 60)]:
        line = start + (end - start) * np.linspace(0.15, 0.8, 300)[:, None]
        index = np.rint(line / scan.volume.spacing_mm).astype(int)
        lined[tuple(index.T)] = True
    return np.asarray(distance(lined, scan.volume.spacing_mm) < 2.0)


def basal(sides: Sides, hu: float, sd: float = 20.0) -> Callable[[Known], Painted]:
    """Consolidation of the posterior base: behind a plane that no level of fluid would follow, mottled at its edge."""

    def paint(scan: Known) -> Painted:
        where = np.zeros(scan.truth.shape, bool)
        for side in sides:
            lung = scan.truth == side
            y0, y1 = _extent(lung, 1)
            uneven = np.random.default_rng(5).standard_normal(lung.shape, dtype=np.float32)
            uneven = ndimage.gaussian_filter(uneven, [8 / s for s in scan.volume.spacing_mm])
            back = np.arange(lung.shape[1])[None, :, None] + uneven / uneven.std() * 4 / scan.volume.spacing_mm[1]
            where |= lung & _lower(scan, lung, 0.45) & (back > y0 + 0.68 * (y1 - y0))
        return _fill(scan, where, hu, sd)

    return paint


def effusion(ml: float, sides: Sides, hu: float = 10.0, sd: float = 12.0) -> Callable[[Known], Painted]:
    """Fluid behind the lung of a supine patient: a layer along the back, thickest at the base, with a meniscus."""

    def paint(scan: Known) -> Painted:
        where = np.zeros(scan.truth.shape, bool)
        z, y, x = _axes(scan)
        for side in sides:
            lung = scan.truth == side
            z0, z1 = (i * scan.volume.spacing_mm[0] for i in _extent(lung, 0))
            x0, x1 = (i * scan.volume.spacing_mm[2] for i in _extent(lung, 2))
            # Higher up and at the flanks the layer is thinner and its surface climbs along the wall.
            climb = 14 * np.abs(2 * (x - x0) / (x1 - x0) - 1) ** 3
            level = y - 45 * (z - z0) / (z1 - z0) + climb
            inside = np.broadcast_to(level, lung.shape)[lung]
            count = min(inside.size - 1, int(ml / len(sides) / scan.volume.voxel_ml))
            where |= lung & (level > np.partition(inside, inside.size - count)[inside.size - count])
        return _fill(scan, where, hu, sd, fluid=True)

    return paint


def cases() -> list[Case]:
    """All painted cases."""
    rims = [
        *((mm, hu, 0.5) for mm in (10, 15) for hu in (-150, -50, 0, 25, 50)),
        (25, -50, 0.5),
        (25, 25, 0.5),
        (25, 50, 0.5),
        (10, 50, 1.0),
        (15, 25, 1.0),
        (15, 50, 1.0),
        (15, -100, 1.0),
        (25, 50, 1.0),
    ]
    made = []
    for scan in (CONTOURED, LIDC, "phantom-3", "phantom-11-0.6"):
        every = scan in (CONTOURED, LIDC)
        chosen = (
            rims if every else [r for r in rims if r in {(10, 0, 0.5), (15, 50, 0.5), (15, 50, 1.0), (25, 25, 0.5)}]
        )
        for mm, hu, part in chosen:
            where = "lower half" if part < 1 else "everywhere"
            made.append(Case(scan, f"rim {mm} mm, {hu} HU, {where}", rim(mm, hu, part)))
        made += [
            Case(scan, "rim 15 mm, 40 HU, lower half, right only", rim(15, 40, 0.5, (RIGHT,))),
            Case(scan, "reticulation 20 mm, lower half", net(20)),
            Case(scan, "honeycombing 20 mm, lower half", net(20, cysts=True)),
            Case(scan, "right lower lobe, 45 HU", lobe(RIGHT, 45)),
            Case(scan, "left lower lobe, 35 HU", lobe(LEFT, 35)),
            Case(scan, "left lower lobe, 50 HU, bronchi", lobe(LEFT, 50, bronchi=True)),
            Case(scan, "right upper lobe, 40 HU, bronchi", lobe(RIGHT, 40, bronchi=True, upper=True)),
            Case(scan, "posterior bases, 45 HU", basal(BOTH, 45)),
            Case(scan, "posterior right base, 20 HU", basal((RIGHT,), 20)),
            Case(scan, "effusion 0.3 l, right", effusion(300, (RIGHT,))),
            Case(scan, "effusion 0.8 l, left, 3 HU", effusion(800, (LEFT,), 3.0)),
            Case(scan, "effusion 0.8 l, both, 18 HU", effusion(800, BOTH, 18.0)),
            Case(scan, "effusion 1.7 l, both", effusion(1700, BOTH)),
        ]
    return made


def main(wanted: str = "") -> None:
    """Print a row for each case whose name holds `wanted`: what the segmenter without weights finds of it."""
    for case in cases():
        if wanted not in f"{case.scan}: {case.name}":
            continue
        made = case.make()
        try:
            labels = ClassicalSegmenter()(made.volume)
        except RefusedError as error:
            print(f"| {case.scan} | {case.name} | refused: {error.code} | | | | |", flush=True)
            continue
        left_out = gap.left_out(made.volume, labels)
        flagged = ", ".join(f.code for f in gap.flags(left_out, segmenter.volumes(made.volume, labels)))
        both = np.count_nonzero(labels > 0) + np.count_nonzero(made.truth > 0)
        dice = 2 * np.count_nonzero((labels > 0) & (made.truth > 0)) / both
        missed_ml = np.count_nonzero(made.paint & (labels == 0)) * made.volume.voxel_ml
        print(
            f"| {case.scan} | {case.name} | {dice:.3f} | {made.paint_ml:.0f} | {missed_ml:.0f} | {left_out.total:.0f} |"
            f" {flagged} |",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
