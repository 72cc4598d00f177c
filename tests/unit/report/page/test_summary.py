"""The views and the page drawn from them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pydicom.tag import Tag

from dicomnode.analysis.arrays import Volume
from dicomnode.analysis.findings import Findings, Flag, Reason, RiskExplanation, SliceRelevance, VolumeMl
from dicomnode.analysis.risk.ensemble import Ensemble
from dicomnode.analysis.risk.fold_models import FoldModels, Networks, Tables
from dicomnode.report.page import explained, layout, risk_plot, summary, trend, views
from dicomnode.report.pdf import pictures
from tests.helpers import report_cases as cases


def volume(shape: tuple[int, int, int] = (20, 64, 64)) -> Volume:
    """Every voxel's value tells its place."""
    z, y, x = np.indices(shape, dtype=np.int16)
    hu = (z * 100 + y * 10 + x - 1500).astype(np.int16)
    return Volume(hu, (4.0, 2.0, 2.0), (0.0, 0.0, 0.0), ((0, 0, 1), (0, 1, 0), (1, 0, 0)), ())


def lungs(shape: tuple[int, int, int] = (20, 64, 64)) -> np.ndarray:
    labels = np.zeros(shape, np.uint8)
    labels[2:19, 20:45, 10:28] = 1
    labels[2:19, 20:40, 36:54] = 2
    labels[2:19, 30, 5:60] = np.where(np.arange(5, 60) < 32, 1, 2)
    return labels


def test_views_show_the_slices_they_name_as_a_radiologist_looks() -> None:
    chosen = views.choose(volume(), lungs())
    whole, labels = volume().hu, lungs()
    # y = 30 has most lung; the margin of 30 mm is 8 slices and 15 pixels, cut at the edges of the volume.
    np.testing.assert_array_equal(chosen.coronal.hu, whole[::-1, 30, 0:64])
    np.testing.assert_array_equal(chosen.coronal.labels, labels[::-1, 30, 0:64])
    np.testing.assert_array_equal(chosen.middle.hu, whole[10, 5:60, 0:64])
    np.testing.assert_array_equal(chosen.basal.hu, whole[4, 5:60, 0:64])
    assert chosen.coronal.spacing_mm == (4.0, 2.0)
    assert chosen.middle.spacing_mm == (2.0, 2.0)
    assert chosen.coronal_z_mm == (76.0, 0.0)


def test_the_coronal_view_knows_its_height_where_the_lungs_are_cut_out() -> None:
    labels = np.zeros((60, 64, 64), np.uint8)
    labels[20:30, 20:45, 10:28] = 1
    chosen = views.choose(volume((60, 64, 64)), labels)
    assert chosen.coronal.hu.shape[0] == 26
    assert chosen.coronal_z_mm == ((20 - 8 + 25) * 4.0, (20 - 8) * 4.0)


def test_without_lungs_the_middle_is_shown() -> None:
    chosen = views.choose(volume(), np.zeros((20, 64, 64), np.uint8))
    np.testing.assert_array_equal(chosen.coronal.hu, volume().hu[::-1, 32])


def test_views_survive_a_file(tmp_path: Path) -> None:
    chosen = views.choose(volume(), lungs())
    chosen.save(tmp_path / "views.npz")
    loaded = views.Views.load(tmp_path / "views.npz")
    assert loaded.coronal_z_mm == chosen.coronal_z_mm
    for ours, theirs in (
        (chosen.coronal, loaded.coronal),
        (chosen.middle, loaded.middle),
        (chosen.basal, loaded.basal),
    ):
        assert (ours.name, ours.spacing_mm) == (theirs.name, theirs.spacing_mm)
        np.testing.assert_array_equal(ours.hu, theirs.hu)
        np.testing.assert_array_equal(ours.labels, theirs.labels)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="must be the same"):
        views.choose(volume(), np.zeros((20, 64, 63), np.uint8))


def page(**changes: object) -> np.ndarray:
    findings = dataclasses.replace(cases.analysed(predicted=cases.risk("research")), **changes)
    return summary.picture(views.choose(volume(), lungs()), findings)


def count(picture: np.ndarray, rgb: tuple[int, int, int]) -> int:
    return int((picture == np.array(rgb, np.uint8)).all(axis=-1).sum())


@pytest.mark.parametrize("members", [2, 3, 20])
def test_the_page_says_in_full_what_the_band_is_and_is_not(members: int) -> None:
    """Three or five models tell no 95 % interval; the words that say so are not cut off."""
    arms = (Tables("radiomics", (None,) * members), Networks("densenet121", {"one": None}))  # type: ignore[arg-type]
    interval = FoldModels(
        "", None, arms[1:], arms[:1], Ensemble(weights={"radiomics": 1}, slope=1, intercepts=(0,))
    ).interval
    said = risk_plot.band_words(dataclasses.replace(cases.risk("research"), interval=interval))
    caveat = f"Band: spread of {members} models, not the certainty of the risk"
    assert said == f"{caveat}: their 2.5th to 97.5th percentiles (about their range, as they are few)"


def test_the_page_is_drawn_the_same_every_time() -> None:
    picture = page()
    assert picture.shape[1:] == (1024, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, page())


def test_warnings_are_burned_in() -> None:
    red, amber = (0x8C, 0x1C, 0x13), (0xB3, 0x6B, 0x00)
    assert count(page(), red) > 40_000
    assert count(page(), amber) == 0
    assert count(page(risk=cases.risk("synthetic-demo")), amber) > 20_000


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.texts)


def test_all_flags_are_on_the_page_clinical_ones_first() -> None:
    flags = (
        Flag("order-not-found", "warning", "no order"),
        *(
            Flag("contrast", "info", f"doubt {k} of many, with enough words to fill a line of the page")
            for k in range(20)
        ),
        Flag("cut-off-base", "error", "the base is missing"),
    )
    said = words(layout.head(dataclasses.replace(cases.analysed(), flags=flags)))
    assert all(f"doubt {k} of many" in said for k in range(20))
    assert said.index("the base is missing") < said.index("doubt 0") < said.index("doubt 19") < said.index("no order")
    assert "Study of 2026-01-01" in said


def test_a_patient_with_one_lung_has_one_column() -> None:
    both = cases.analysed()
    one = dataclasses.replace(
        both,
        quantities={k: q for k, q in both.quantities.items() if k != "right"},
        lungs=dataclasses.replace(both.lungs, volume_ml=VolumeMl(2321.0, 2321.0, 0.0)),
    )
    said = words(layout.numbers(one)).split("\n")
    assert not {"Both", "Right", "0"} & set(said)
    assert said.count("2321") == 1
    assert {"Both", "Right", "Left"} <= set(words(layout.numbers(both)).split("\n"))


def test_names_are_written_in_their_own_letters_and_in_full() -> None:
    findings = cases.analysed(predicted=dataclasses.replace(cases.risk("research"), bundle="ssc-" * 40))
    findings = dataclasses.replace(findings, series=dataclasses.replace(findings.series, kernel="肺野 FC51"))
    said = words(layout.provenance(findings)).replace("\n", "")
    assert "肺野 FC51" in said
    assert said.count("ssc-") == 40


#: As a formula, the first cannot be read at all, and the second is set without its signs.
FORMULAS = ("$\\frac$", "CT $B, not $A$", r"a\$b$c")


@pytest.mark.parametrize("words", FORMULAS)
def test_words_of_a_header_are_no_formulas(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    monkeypatch.setattr("matplotlib.mathtext.MathTextParser.parse", lambda _self, text, *_, **__: parsed.append(text))
    usual = cases.analysed(predicted=cases.risk("research"), change=cases.changed(), trend=cases.scanned_before(3))
    assert usual.series is not None
    assert usual.risk is not None
    findings = dataclasses.replace(
        usual,
        series=dataclasses.replace(usual.series, kernel=words, manufacturer=words),
        flags=(Flag("contrast", "info", words), Flag("cut-off-base", "error", words)),
        risk=dataclasses.replace(usual.risk, bundle=words),
    )
    assert summary.picture(views.choose(volume(), lungs()), findings).shape[1] == 1024
    (why,) = cases.refused().rejected[:1]
    refused = dataclasses.replace(why, modality=words, reasons=(Reason("not-ct", words),))
    assert summary.refusal_picture(dataclasses.replace(cases.refused(), rejected=(refused,))).shape[1] == 1024
    assert pictures.slices(views.choose(volume(), lungs()))
    assert not parsed


def test_left_and_right_can_be_told_apart_in_grey() -> None:
    """The right outline is whole, the left one broken: seen in the share of its dark line that the colour covers."""
    picture = page()
    shares = []
    for rgb in ((230, 159, 0), (86, 180, 233)):
        coloured = (abs(picture[150:620].astype(int) - rgb).sum(axis=-1) < 60).sum()
        shares.append(int(coloured))
    assert shares[1] < 0.75 * shares[0]


def test_outlines_have_the_colours_of_their_sides() -> None:
    picture = page()
    coronal = picture[130:560, 30:580].astype(int)
    orange = (abs(coronal - [230, 159, 0]).sum(axis=-1) < 60).nonzero()[1]
    blue = (abs(coronal - [86, 180, 233]).sum(axis=-1) < 60).nonzero()[1]
    assert orange.size > 200
    assert blue.size > 200
    assert orange.mean() < blue.mean()  # the patient's right is on the left


@pytest.mark.parametrize(
    "changes",
    [
        {"risk": None},
        {"flags": ()},
        {"flags": cases.analysed().flags * 9},
        {"quantities": {}},
        {"change": cases.changed()},  # without a trend, as findings of early versions have it
    ],
)
def test_pages_with_less_or_more_on_them_differ(changes: dict[str, object]) -> None:
    assert not np.array_equal(page(**changes), page())


def test_what_the_networks_looked_at_stands_at_its_height() -> None:
    """The bars of two slices, of which one weighs nothing, at rows of the coronal picture."""
    heights = (8.0, 68.0)  # of the coronal's 0 to 76 mm
    found = []
    for weights in ((1.0, 0.0), (0.0, 1.0)):
        looked = tuple(SliceRelevance(z, weight) for z, weight in zip(heights, weights, strict=True))
        strip = layout.pictures(views.choose(volume(), lungs()), looked)
        beside = drawn(strip)[6:422, 540:582, :3] != np.array([0x10, 0x15, 0x1A])
        found.append(beside.any(axis=-1).nonzero()[0].mean())
    low, high = found
    # Feet are below; 20 rows of 4 mm and 64 columns of 2 mm on 500 pixels of width.
    assert low - high == pytest.approx(60 / 2 * 500 / 64, abs=8)


def test_heat_lies_on_the_slice_where_the_network_saw_it(tmp_path: Path) -> None:
    """The hot cell is the upper right one: left of the patient, in front."""
    risk = dataclasses.replace(cases.risk("research"), explanation=cases.explanation())
    chosen = views.choose(volume(), lungs(), risk.explanation)
    (looked,) = chosen.looked
    # z = 38 mm is the slice half way from 9 to 10; in y the lungs are 20 to 44, in x 5 to 59; 48 x 72 mm are 24 x 36.
    np.testing.assert_array_equal(looked.view.hu, volume().hu[10, 5:60, 0:64])
    assert looked.covers == (32 - 18, 32 + 18, 32 - 5 - 12, 32 - 5 + 12)
    chosen.save(tmp_path / "views.npz")
    again = views.Views.load(tmp_path / "views.npz").looked
    assert [(one.arm, one.covers) for one in again] == [("resnet18", looked.covers)]
    heat = risk.explanation.arms[1].heat if risk.explanation is not None else None
    assert heat is not None
    figure = Figure(figsize=(4, 4), dpi=100)
    explained.draw(figure.add_axes((0, 0, 1, 1)), looked, heat, size=8)
    pixels = drawn(figure).astype(float)
    violet = pixels[..., 2] - pixels[..., 1] > 30
    down, across = (float(np.mean(place)) for place in violet.nonzero())
    assert down < 0.5 * pixels.shape[0] and across > 0.5 * pixels.shape[1]


def test_the_page_explains_only_where_the_findings_do() -> None:
    """A strip more, between the numbers and what made them; nothing else moves."""
    first = page()
    risk = dataclasses.replace(cases.risk("research"), explanation=cases.explanation())
    told = page(risk=risk)
    below = drawn(layout.provenance(cases.analysed(predicted=cases.risk("research")))).shape[0]
    np.testing.assert_array_equal(told[: len(first) - below], first[:-below])
    np.testing.assert_array_equal(told[-below:], first[-below:])
    assert len(told) > len(first)
    unlike = dataclasses.replace(risk, explanation=RiskExplanation(5, ()))
    np.testing.assert_array_equal(page(risk=unlike), first)


def test_prior_scans_are_shown_in_a_strip_between_numbers_and_origin() -> None:
    first = page()
    followed = page(change=cases.changed(), trend=cases.scanned_before(3))
    below = drawn(layout.provenance(cases.analysed(predicted=cases.risk("research")))).shape[0]
    np.testing.assert_array_equal(followed[: len(first) - below], first[:-below])
    np.testing.assert_array_equal(followed[-below:], first[-below:])
    assert len(followed) > len(first) + 200


def drawn(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


@pytest.mark.parametrize(
    "changes",
    [
        {"risk": None},
        {"change": cases.changed(days=700.0)},
        {"trend": cases.scanned_before(2)},
        {"trend": tuple(dataclasses.replace(p, doubts=("change-kernel",)) for p in cases.scanned_before(3))},
        {"trend": tuple(dataclasses.replace(p, bundle_sha256="") for p in cases.scanned_before(3))},
        {"trend": tuple(dataclasses.replace(p, haa_percent=None, mean_hu=None) for p in cases.scanned_before(3))},
        {"quantities": {}},
    ],
)
def test_the_strip_shows_what_is_known(changes: dict[str, object]) -> None:
    usual = cases.analysed(predicted=cases.risk("research"), change=cases.changed(), trend=cases.scanned_before(3))
    assert not np.array_equal(strip(dataclasses.replace(usual, **changes)), strip(usual))


def strip(findings: Findings) -> np.ndarray:
    return drawn(trend.strip(findings))


def test_the_page_of_a_refused_study_says_why() -> None:
    said = words(layout.head(cases.refused())) + words(layout.refusal(cases.refused()))
    assert "NOT ANALYSED" in said
    assert "the images state no modality" in said
    assert summary.refusal_picture(cases.refused()).shape[1] == 1024


def test_a_refused_study_has_no_summary() -> None:
    with pytest.raises(ValueError, match="have no lungs"):
        summary.picture(views.choose(volume(), lungs()), cases.refused())


def test_the_secondary_capture_holds_the_page() -> None:
    headers, picture = cases.synthetic(), page()
    findings = cases.analysed(predicted=cases.risk("research"))
    first, second = (
        cases.to_bytes(summary.encode(cases.synthetic(), picture, findings, cases.CONTEXT)) for _ in range(2)
    )
    assert first == second
    image = cases.reread(summary.encode(headers, picture, findings, cases.CONTEXT))
    np.testing.assert_array_equal(image.pixel_array, picture)
    assert (image.BurnedInAnnotation, image.ConversionType, image.BodyPartExamined) == ("NO", "WSD", "CHEST")
    assert (image.SeriesNumber, len(image.SourceImageSequence)) == (9004, 6)
    assert image.get_item(Tag("PatientName")).value == "Müller^Änne ".encode()
    assert "research use only" in image.SeriesDescription


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)]
)
def test_other_arrays_are_no_pictures(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be uint8"):
        summary.encode(cases.synthetic(1), wrong, cases.analysed(), cases.CONTEXT)
