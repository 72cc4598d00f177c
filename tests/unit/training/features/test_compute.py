"""Features of a cohort: the registry's own, those measured here, their change; cached, restartable."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dicomnode.analysis.findings import ChosenSeries, Findings, Lungs, VolumeMl
from dicomnode.analysis.measures import change, quantify
from dicomnode.analysis.phantom.phantom import Disease, chest
from dicomnode.analysis.risk.tabular import features_of, names_of
from dicomnode.errors import UsageError
from dicomnode.registry_format.volumes import read_volume
from training.data.registry_folder import SCANS, Registry, read
from training.features import compute as features
from training.features.compute import CHANGES, compute
from training.features.settings import FeatureSettings

DATES = ["2015-01-01", "2015-02-01", "2016-03-01"]
QUICK = FeatureSettings(radiomics=False, workers=1)


def silent(*_: object) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One patient's three scans: a volume each, features of the first alone."""
    folder = tmp_path_factory.mktemp("registry")
    (folder / "scans").mkdir()
    rows, first = [], {}
    for number, day in enumerate(DATES):
        phantom = chest(
            number, shape=(16, 24, 30), spacing_mm=(18.0, 11.0, 11.0), disease=Disease.of_severity(0.2 + 0.2 * number)
        )
        np.savez(
            folder / "scans" / f"A-{number}.npz",
            hu=phantom.volume.hu,
            labels=phantom.labels,
            spacing_mm=phantom.volume.spacing_mm,
            origin_mm=phantom.volume.origin_mm,
        )
        rows.append(dict.fromkeys(SCANS, "") | {"patient": "A", "scan": f"A-{number}", "date": day, "sex": "M"})
        rows[-1] |= {"age_years": 60 + number, "volume": f"scans/A-{number}.npz"}
        first = first or names_of(quantify.by_region(phantom.volume, phantom.labels), {})
    pd.DataFrame(rows).to_csv(folder / "scans.csv", index=False)
    (folder / "registry.toml").write_text('format = 1\nmade_by = "synthetic"\n')
    stored = pd.DataFrame([first])
    stored.insert(0, "scan", ["A-0"])
    stored.to_parquet(folder / "features.parquet", index=False)
    return folder


@pytest.fixture
def registry(folder: Path) -> Registry:
    return read(folder)


def cohort(registry: Registry) -> pd.DataFrame:
    frame = registry.scans.copy()
    frame["prior_scan"] = ["", "A-0", "A-1"]
    frame["years_since_prior"] = np.array([np.nan, 31, 394]) / 365.25
    return frame


def test_what_the_registry_has_is_taken_and_the_rest_measured(registry: Registry, tmp_path: Path) -> None:
    found = compute(cohort(registry), registry, QUICK, tmp_path, silent)
    assert found["scan"].to_list() == ["A-0", "A-1", "A-2"]
    assert sorted(p.name.rsplit("-", 1)[0] for p in tmp_path.iterdir()) == ["A-1", "A-2"]
    parallel = QUICK.model_copy(update={"source": "volumes", "workers": 2})
    anew = compute(cohort(registry), registry, parallel, tmp_path, silent)
    pd.testing.assert_frame_equal(found, anew)
    assert found.drop(columns="scan").dtypes.eq(np.float64).all()
    assert found["quantities.lungs.haa_percent"].is_monotonic_increasing


def test_radiomics_of_another_resolution_are_not_taken_for_ours(registry: Registry, tmp_path: Path) -> None:
    """Texture at 4 mm is another number than texture at 1 mm."""
    measured = registry.features.assign(**{"radiomics.lungs.original_glcm_Contrast": 1.0})
    coarse = replace(registry, features=measured, about={**registry.about, "radiomics_spacing_mm": 4})
    asked = QUICK.model_copy(update={"radiomics": True})
    with pytest.raises(UsageError, match="measured at 4 mm, but features.radiomics_spacing_mm is 1: set it to 4, or"):
        compute(cohort(coarse), coarse, asked, tmp_path, silent)
    compute(cohort(coarse), coarse, QUICK, tmp_path, silent)  # which does without them
    assert registry.radiomics_spacing_mm == 1


@pytest.mark.parametrize(
    ("form", "made_by", "cure"),
    [
        (1, "node", "let the node measure them"),
        (2, "node", "let the node measure them"),
        (2, "training", "make the registry anew with `training cohort --dicom`"),
        (2, "synthetic", "make it anew with `training synthetic --radiomics`"),
    ],
)
def test_nothing_is_measured_from_volumes_that_are_cut_to_the_lungs(
    registry: Registry, tmp_path: Path, form: int, made_by: str, cure: str
) -> None:
    """They are cut to the lungs: their texture is not what the node measures when it serves."""
    node = replace(registry, about={**registry.about, "format": form, "made_by": made_by})
    measured = node.features.assign(**{"quantities.lungs.mean_hu": -800.0})
    whole = replace(node, features=measured.assign(**{"radiomics.lungs.original_glcm_Contrast": 1.0}))
    radiomics = QUICK.model_copy(update={"radiomics": True})
    for read_, settings, message in (
        (
            node,
            QUICK,
            rf"lacks quantities\.\* for 2 of 3 scans, and its volumes are cropped to the lungs .*: {cure}",
        ),
        (replace(node, features=measured), radiomics, r"radiomics\.\* for 3 of 3 .*or set features\.radiomics = false"),
        (
            whole,
            QUICK.model_copy(update={"source": "volumes"}),
            r'source is "volumes": .*set features\.source = "regis',
        ),
        (whole, radiomics.model_copy(update={"radiomics_spacing_mm": 2.0}), "is 2: set it to 1$"),
    ):
        with pytest.raises(UsageError, match=message):
            compute(cohort(read_), read_, settings, tmp_path / "cache", silent)
    assert not (tmp_path / "cache").exists()
    compute(cohort(whole), whole, radiomics, tmp_path / "cache", silent)


def test_the_change_is_the_nodes(registry: Registry, tmp_path: Path) -> None:
    """The same numbers as `dicomnode.analysis.measures.change` puts into the findings."""
    found = compute(cohort(registry), registry, QUICK, tmp_path, silent).set_index("scan")
    assert set(CHANGES) == {c for c in found if c.startswith("change.")}
    # No prior scan; a prior scan too short a time ago.
    assert found.loc[["A-0", "A-1"], list(CHANGES)].isna().all(axis=None)
    then, now = (findings(registry, number) for number in (1, 2))
    node = features_of(change_into(now, then))
    for name in CHANGES:
        assert found.loc["A-2", name] == pytest.approx(node[name], rel=1e-12)


def findings(registry: Registry, number: int) -> Findings:
    volume, labels = read_volume(registry.folder / f"scans/A-{number}.npz")
    quantities = quantify.by_region(volume, labels)
    total = quantities["lungs"].volume_ml or 0.0
    series = ChosenSeries(str(number), "1", 9, (1, 1, 1), "", "", study_date=DATES[number].replace("-", ""))
    return Findings(
        "analysed", series, lungs=Lungs("a", "1", VolumeMl(total, 0, 0), "morphology"), quantities=quantities
    )


def change_into(now: Findings, then: Findings) -> Findings:
    return replace(now, change=change.compare(now, [then]))


def test_covariates_are_features_too(registry: Registry, tmp_path: Path) -> None:
    frame = cohort(registry).assign(fvc_l=[2.5, np.nan, 2.0], sex=["M", "F", ""])
    found = compute(frame, registry, QUICK, tmp_path, silent)
    assert found["covariates.age_years"].to_list() == [60, 61, 62]
    assert found["covariates.sex_male"].fillna(-1).to_list() == [1, 0, -1]
    assert found["covariates.fvc_l"].fillna(-1).to_list() == [2.5, -1, 2.0]


def test_a_second_call_measures_nothing_and_a_lost_file_alone(registry: Registry, tmp_path: Path, monkeypatch) -> None:
    progress: list[tuple[int, int]] = []
    first = compute(cohort(registry), registry, QUICK, tmp_path, lambda _, done, total: progress.append((done, total)))
    assert progress == [(0, 2), (1, 2), (2, 2)]
    kept = sorted(tmp_path.iterdir())
    kept[0].unlink()
    before = kept[1].stat().st_mtime_ns
    progress.clear()
    again = compute(cohort(registry), registry, QUICK, tmp_path, lambda _, done, total: progress.append((done, total)))
    pd.testing.assert_frame_equal(first, again)
    assert progress == [(1, 2), (2, 2)] and kept[1].stat().st_mtime_ns == before
    monkeypatch.setattr(features, "_measure_one", None)
    compute(cohort(registry), registry, QUICK, tmp_path, silent)


def test_the_cache_hangs_on_the_method_and_the_volume(registry: Registry, tmp_path: Path) -> None:
    def names(settings: FeatureSettings) -> set[str]:
        stored = features._stored(cohort(registry), registry, settings)
        return {t.cached.name for t in features._tasks(cohort(registry), registry, settings, tmp_path, stored)}

    coarse = FeatureSettings(radiomics_spacing_mm=4)
    assert not names(FeatureSettings()) & names(coarse) and len(names(coarse)) == 3
    before = names(coarse)
    volume = registry.folder / "scans/A-1.npz"
    stat = volume.stat()
    os.utime(volume, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    assert len(before & names(coarse)) == 2


def test_radiomics_are_measured_where_the_registry_lacks_them(registry: Registry, tmp_path: Path) -> None:
    settings = FeatureSettings(radiomics_spacing_mm=6, workers=1)
    found = compute(cohort(registry), registry, settings, tmp_path, silent)
    textures = [c for c in found if c.startswith("radiomics.")]
    assert len(textures) == 3 * 107 and found[textures].notna().all(axis=None)
    spec = features.radiomics_settings(settings)
    assert spec is not None and json.loads(json.dumps(spec))["setting"]["resampledPixelSpacing"] == [6, 6, 6]


def test_radiomics_of_another_preparation_are_not_taken_for_ours(registry: Registry, tmp_path: Path) -> None:
    """A node whose setting changed has recorded both."""
    both = registry.features.assign(
        **{
            "quantities.lungs.mean_hu": -800.0,
            "radiomics.lungs.original_glcm_Contrast": 1.0,
            "radiomics.lungs.ibsi_glcm_Contrast": 2.0,
        }
    )
    for preparation, value in (("pyradiomics", 1.0), ("ibsi", 2.0)):
        settings = FeatureSettings.model_validate({"radiomics_preparation": preparation, "workers": 1})
        known = compute(cohort(registry), replace(registry, features=both), settings, tmp_path, silent)
        textures = [c for c in known if c.startswith("radiomics.")]
        assert len(textures) == 1 and (known[textures[0]] == value).all()


def test_radiomics_are_measured_in_the_preparation_asked_for(registry: Registry, tmp_path: Path) -> None:
    settings = FeatureSettings(radiomics_spacing_mm=6, radiomics_preparation="ibsi", workers=1)
    found = compute(cohort(registry), registry, settings, tmp_path, silent)
    textures = [c for c in found if c.startswith("radiomics.")]
    assert len(textures) == 3 * 107 and all(".ibsi_" in c for c in textures)
    assert found[textures].notna().all(axis=None)


def test_a_scan_that_cannot_be_measured_is_named(registry: Registry, tmp_path: Path) -> None:
    frame = cohort(registry).assign(volume=["", "", "scans/A-2.npz"])
    with pytest.raises(
        UsageError, match=r"the scan A-1 has no volume, and features\.parquet has no quantities\.\* for it"
    ):
        compute(frame, registry, QUICK, tmp_path, silent)
    np.savez(tmp_path / "empty.npz", hu=np.zeros((2, 2, 2), np.int16), labels=np.zeros((2, 2, 2), np.uint8),
             spacing_mm=(1, 1, 1), origin_mm=(0, 0, 0))  # fmt: skip
    elsewhere = Registry(tmp_path, registry.about, registry.scans, registry.features, "")
    with pytest.raises(UsageError, match=r"empty\.npz: no voxel is labelled as lung: repair the volume"):
        compute(frame.assign(volume=["", "empty.npz", "empty.npz"]), elsewhere, QUICK, tmp_path / "cache", silent)
