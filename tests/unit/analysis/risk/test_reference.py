"""How far outside the training population a scan lies: the rate of false flags, what is found, and that it is told."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from dicomnode.analysis.findings import Findings
from dicomnode.analysis.lungs.classical import ClassicalSegmenter
from dicomnode.analysis.phantom import phantom
from dicomnode.analysis.pipeline import Method, analyse
from dicomnode.analysis.risk import golden_case, load_bundle, predict, reference
from dicomnode.analysis.risk.bundle import Bundle
from dicomnode.analysis.risk.reference import ReferenceDistribution
from dicomnode.analysis.risk.scan_inputs import ScanInputs
from dicomnode.errors import BundleError
from dicomnode.registry.monitor import inputs_of
from dicomnode.report.wording import made_from
from dicomnode.store.catalog.registry import RegistryScan
from tests.helpers import populations, report_cases
from tests.helpers.ct_files import ct_series, write
from tests.helpers.running import ROOT
from training.bundle import reference as made
from training.bundle.make import write_sealed

Planted = Callable[[RegistryScan, np.random.Generator], RegistryScan]


@pytest.fixture(scope="module")
def known() -> ReferenceDistribution:
    return populations.population(300, 1).reference()


@pytest.fixture(scope="module")
def newcomers() -> tuple[RegistryScan, ...]:
    return populations.population(600, 77).scans


def outside(known: ReferenceDistribution, scans: list[RegistryScan]) -> float:
    found = [known.distance(inputs_of(scan)) for scan in scans]
    assert all(found)
    return float(np.mean([one.outside for one in found if one]))


def test_at_most_a_twentieth_of_the_same_population_is_flagged(
    known: ReferenceDistribution, newcomers: tuple[RegistryScan, ...]
) -> None:
    assert outside(known, list(newcomers)) <= 0.05


def child(scan: RegistryScan, rng: np.random.Generator) -> RegistryScan:
    return replace(populations.measured(scan, 0.05, 1900.0, 15.0, rng), age_years=float(rng.uniform(6, 16)))


def youth(scan: RegistryScan, rng: np.random.Generator) -> RegistryScan:
    return replace(scan, age_years=float(rng.uniform(14, 21)))


def abdomen(scan: RegistryScan, rng: np.random.Generator) -> RegistryScan:
    base = {"volume_ml": rng.uniform(400, 1500), "mean_hu": rng.normal(-650, 40), "sd_hu": rng.normal(220, 20)}
    shape = {"kurtosis": rng.uniform(0.5, 2), "haa_percent": rng.uniform(15, 30), "laa950_percent": rng.uniform(0, 1)}
    return replace(scan, features={f"quantities.lungs.{k}": float(v) for k, v in (base | shape).items()})


def unknown_scanner(scan: RegistryScan, rng: np.random.Generator) -> RegistryScan:
    return replace(scan, manufacturer="NeuroLogica", model=f"BodyTom {rng.integers(9)}")


@pytest.mark.parametrize("planted", [child, youth, abdomen, unknown_scanner, populations.thicker])
def test_another_body_part_age_group_or_scanner_kind_is_found(
    known: ReferenceDistribution, newcomers: tuple[RegistryScan, ...], planted: Planted
) -> None:
    rng = np.random.default_rng(3)
    assert outside(known, [planted(scan, rng) for scan in newcomers[:200]]) >= 0.9


def test_a_kernel_family_that_training_had_not_is_found(newcomers: tuple[RegistryScan, ...]) -> None:
    soft = tuple(replace(s, kernel_family="medium") for s in populations.population(300, 1).scans)
    known = populations.Population(soft, ()).reference()
    assert outside(known, [replace(s, kernel_family="medium") for s in newcomers]) <= 0.05
    assert outside(known, [replace(s, kernel_family="lung") for s in newcomers]) >= 0.9


def test_the_file_holds_no_patient(known: ReferenceDistribution) -> None:
    scans = populations.population(300, 1).scans
    text = known.model_dump_json()
    assert not [scan.patient for scan in scans if scan.patient in text]
    for one in known.numbers:
        values = np.array([inputs_of(scan).numbers[one.name] for scan in scans])
        slack = 1e-3 * max(abs(q) for q in one.quantiles)  # they are rounded
        assert (values <= one.quantiles[0] + slack).sum() >= made.FEWEST
        assert (values >= one.quantiles[-1] - slack).sum() >= made.FEWEST
    rare = [replace(scan, manufacturer="Rare Inc") if k < 4 else scan for k, scan in enumerate(scans)]
    fitted = made.fit([inputs_of(s) for s in rare], [s.patient for s in rare], [s.scan for s in rare])
    assert fitted is not None and "rare" not in fitted.model_dump_json()


def test_too_few_patients_make_no_reference(tmp_path: Path) -> None:
    few = populations.population(made.PATIENTS - 1, 4)
    assert made.write(tmp_path, *populations.tables(few), ()) is False and not list(tmp_path.iterdir())
    enough = populations.population(made.PATIENTS, 4)
    assert made.write(tmp_path, *populations.tables(enough), ())
    assert reference.parse((tmp_path / reference.NAME).read_bytes(), tmp_path) == enough.reference()


def test_what_is_not_known_tells_nothing_and_too_little_gives_no_distance(known: ReferenceDistribution) -> None:
    middle = {one.name: one.quantiles[5] for one in known.numbers}
    some = dict(list(middle.items())[:5])
    whole, part = known.distance(ScanInputs(middle)), known.distance(ScanInputs(some))
    assert whole is not None and part is not None and not whole.outside and not part.outside
    assert known.distance(ScanInputs(dict(list(middle.items())[:4]))) is None


def test_a_flag_names_what_is_usual_and_no_value_of_the_patient(known: ReferenceDistribution) -> None:
    scan = replace(populations.population(1, 5).scans[0], age_years=7.25)
    (flag,) = reference.flags(known.distance(inputs_of(scan)))
    assert flag.code == "outside-population" and "age, years (90 % of its patients:" in flag.text
    assert "7.25" not in flag.text


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "weights" / "demo-synthetic", tmp_path / "bundle"))


def carrying(folder: Path, text: str) -> None:
    """Put a reference into a bundle, sealed as its maker would."""
    bundle = load_bundle.read(folder)
    (folder / reference.NAME).write_text(text)
    (folder / "model.toml").unlink()
    case = golden_case.parse((folder / golden_case.NAME).read_bytes(), folder)
    write_sealed(folder, bundle.manifest.model_dump(mode="json", exclude_none=True, exclude={"files", "seal"}), case)


def test_the_shipped_bundle_serves_and_says_that_it_has_none() -> None:
    bundle = load_bundle.load(ROOT / "weights" / "demo-synthetic", allow_demo=True)
    findings = report_cases.analysed(predicted=report_cases.risk())
    if bundle.reference is None:
        assert "no reference distribution" in " ".join(made_from(findings))


def test_a_reference_is_sealed_with_its_bundle(demo: Path, known: ReferenceDistribution) -> None:
    carrying(demo, known.model_dump_json())
    assert load_bundle.load(demo, allow_demo=True).reference == known == reference.of_folder(demo)
    text = (demo / reference.NAME).read_text()
    (demo / reference.NAME).write_text(text.replace('"patients":300', '"patients":301'))
    for reads in (lambda: load_bundle.read(demo), lambda: reference.of_folder(demo)):
        with pytest.raises(BundleError, match="is not the file listed in model.toml"):
            reads()
    (demo / reference.NAME).unlink()
    for reads in (lambda: load_bundle.read(demo), lambda: reference.of_folder(demo)):
        with pytest.raises(BundleError, match=r"reference\.json is (missing|listed in model.toml and cannot be read)"):
            reads()


NUMBER = {"name": "x", "scale": "plain", "middle": 1.0, "below": 1.0, "above": 1.0}
NUMBER |= {"quantiles": [1.0] * 11, "at_most": [0.5] * 11}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "has format 2, this version reads 1: update dicomnode"),
        ({"precision": [[1.0]]}, "a row and a column for each of the 9"),
        ({"levels": [0.5]}, "levels and scores must be of one length"),
        ({"numbers": [NUMBER | {"at_most": [0.5] * 10 + [0.4]}]}, "at_most must rise"),
        (
            {"numbers": [NUMBER | {"at_most": [0.5] * 10 + [1.1]}]},
            "at_most.10: Input should be less",
        ),
        ({"numbers": [NUMBER | {"quantiles": [2.0] + [1.0] * 10}]}, "quantiles must rise"),
        ({"limit": 0}, "limit: Input should be greater than 0"),
        ({"more": 1}, "more: Extra inputs"),
    ],
)
def test_a_wrong_reference_is_refused_with_the_place(
    known: ReferenceDistribution, change: dict, message: str, tmp_path: Path
) -> None:
    text = json.dumps(known.model_dump(mode="json") | change).encode()
    with pytest.raises(BundleError, match=message):
        reference.parse(text, tmp_path / reference.NAME)


def chest(folder: Path, step_mm: float = 5.0, **attributes: object) -> list[Path]:
    scan = phantom.chest(3, shape=(60, 96, 96), spacing_mm=(5.0, 4.0, 4.0)).volume
    person = {"PatientAge": "055Y", "PatientSex": "F", "ConvolutionKernel": "B30f"} | attributes
    return write(ct_series(scan.hu + np.int16(1024), step_mm=step_mm, PixelSpacing=["4", "4"], **person), folder)


def at_the_node(found: Findings, header: object) -> ScanInputs:
    """Return the inputs of an analysed scan."""
    seen: list[ScanInputs] = []

    class Keeps:
        def distance(self, inputs: ScanInputs) -> None:
            seen.append(inputs)

    predict.population_distance(replace_reference(Keeps()), found, header)  # type: ignore[arg-type]
    return seen[0]


@pytest.mark.parametrize(("stated", "read"), [(1.25, 1.25), (0.0, None), (-1.0, None), (1000.0, None), (None, None)])
def test_a_slice_thickness_that_can_be_none_is_not_known(stated: float | None, read: float | None) -> None:
    findings = report_cases.analysed()
    assert findings.series is not None
    found = at_the_node(replace(findings, series=replace(findings.series, slice_thickness_mm=stated)), Dataset())
    assert found.numbers.get("acquisition.slice_thickness_mm") == read


def similar(found: Findings, header: object) -> ReferenceDistribution:
    """Return the reference of patients around an analysed scan."""
    node = at_the_node(found, header)
    rng = np.random.default_rng(1)
    of = [
        ScanInputs(
            {
                name: value if name.startswith("acquisition.") else value * rng.normal(1.0, 0.2)
                for name, value in node.numbers.items()
            },
            node.words,
        )
        for _ in range(120)
    ]
    names = [str(k) for k in range(len(of))]
    fitted = made.fit(of, names, names)
    assert fitted is not None
    return fitted


def replace_reference(of: object) -> Bundle:
    bundle = load_bundle.read(ROOT / "weights" / "demo-synthetic")
    return replace(bundle, reference=of)  # type: ignore[arg-type]


def test_the_node_flags_another_spacing_kernel_or_age_and_no_scan_like_those_of_training(tmp_path: Path) -> None:
    plain = Method(ClassicalSegmenter(), None, None)
    first = analyse(chest(tmp_path / "first"), plain)
    bundle = replace_reference(similar(first.findings, first.headers[0]))
    method = replace(plain, bundle=bundle)

    def codes(name: str, **changes: object) -> set[str]:
        findings = analyse(chest(tmp_path / name, **changes), method).findings  # type: ignore[arg-type]
        assert findings.population is not None and findings.risk is not None
        again = Findings.from_json(findings.to_json())
        assert again.population == findings.population
        assert ("outside the population" in " ".join(made_from(findings))) == findings.population.outside
        return {flag.code for flag in findings.flags}

    assert "outside-population" not in codes("same")
    for name, changes in {
        "spacing": {"step_mm": 3.0},
        "kernel": {"ConvolutionKernel": "B70f"},
        "age": {"PatientAge": "009Y"},
        "scanner": {"Manufacturer": "Other Inc"},
    }.items():
        assert "outside-population" in codes(name, **changes), name
