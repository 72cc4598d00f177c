"""What was found as a table: a row for each analysed generation, under pseudonyms, each number with its unit."""

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicomnode import config
from dicomnode.analysis.findings import Findings
from dicomnode.cli import app
from dicomnode.config import Config
from dicomnode.conformance import sample_findings
from dicomnode.errors import UsageError
from dicomnode.operations import results_export
from dicomnode.registry.key import load_pseudonyms
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.labels import Label, Unlabelled
from dicomnode.store.records import Instance
from dicomnode.store.results_folder import FINDINGS, results_folder

LABEL = Label("SECRET-ID", "HOSP", "SECRET-ACC", "20240331", "=cmd|'calc'!A1")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[tuple[Config, Catalog]]:
    path = tmp_path / "ae_config.toml"
    path.write_text("")
    settings = config.load(path)
    settings.storage.state.mkdir(parents=True)
    catalog = Catalog.open(settings.catalog_url, settings.storage.state)
    yield settings, catalog
    catalog.close()


def analysed(node: tuple[Config, Catalog], uid: str, at: float, found: Findings | str, generations: int = 1) -> None:
    settings, catalog = node
    for generation in range(1, generations + 1):
        catalog.record(Instance(f"{uid}.{generation}", "1.9", uid, "1.5", "/x", "0" * 64, 1, at, None, "a" * 32))
        catalog.settle(uid, at, None)
        catalog.set_state(uid, generation, "analysed", now=at)
        text = found if isinstance(found, str) else found.to_json()
        folder = results_folder(settings.storage.results, uid, generation)
        folder.mkdir(parents=True)
        (folder / FINDINGS).write_text(text, "utf-8")
    catalog.note_label(Unlabelled(uid, generations, at, None), LABEL)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def full() -> Findings:
    return sample_findings.complete()


def test_a_row_is_a_generation_under_pseudonyms(node: tuple[Config, Catalog], tmp_path: Path) -> None:
    settings, catalog = node
    found = full()
    analysed(node, "1.2", 1_700_000_000.0, found, generations=2)
    analysed(node, "1.3", 1_700_000_000.0, Findings("refused"))
    analysed(node, "1.4", 1_700_000_000.0, "damaged")
    for name, state in (("seg", "delivered"), ("risk", "rejected")):
        catalog.plan_delivery("1.2", 2, "pacs", name, "1.9", f"9.{len(name)}", "/out", now=1.0)
        catalog.mark_delivery("1.2", 2, "pacs", name, state, status=0, text=None, attempts=1, now=1.0)  # type: ignore[arg-type]
    out = tmp_path / "out.csv"
    assert results_export.run(settings, out, None, None, parquet=False, identify=False) == 2
    first, second = table(out)
    names = load_pseudonyms(settings.registry.folder)
    assert first["study"] == second["study"] == names.scan("1.2")
    assert (first["generation"], first["state"], second["state"]) == ("1", "superseded", "analysed")
    assert first["analysed_month"] == "2023-11"
    assert second["deliveries"] == "pacs 1/2 rejected delivered"
    assert found.lungs is not None and found.risk is not None
    assert float(first["mask_total_ml"]) == found.lungs.volume_ml.total
    assert float(first["lungs_haa_percent"]) == found.quantities["lungs"].haa_percent
    one = found.risk.horizons[0]
    told = [float(first[f"risk_{one.years}y_{part}percent"]) for part in ("", "lower_", "upper_")]
    assert told == [100 * one.probability, 100 * one.lower, 100 * one.upper]
    assert first["flags"].split() == list(dict.fromkeys(flag.code for flag in found.flags))
    assert (first["bundle"], first["software_version"]) == (found.risk.bundle, found.software_version)
    text = out.read_text("utf-8")
    assert not any(word in text for word in ("SECRET", "1.2.1", "20240331", "cmd"))


def test_with_identify_cells_are_no_formulas_and_it_is_noted(tmp_path: Path) -> None:
    (tmp_path / "ae_config.toml").write_text('[audit]\nto = "file"\n')
    settings = config.load(tmp_path / "ae_config.toml")
    settings.storage.state.mkdir(parents=True)
    catalog = Catalog.open(settings.catalog_url, settings.storage.state)
    analysed((settings, catalog), "1.2", 1_700_000_000.0, full())
    out = tmp_path / "out.csv"
    results_export.run(settings, out, None, None, parquet=False, identify=True)
    (row,) = table(out)
    assert (row["study_uid"], row["patient_id"], row["study_date"]) == ("1.2", "SECRET-ID", "20240331")
    assert row["study_description"] == "'=cmd|'calc'!A1"
    results_export.run(settings, out, None, None, parquet=False, identify=False)
    identified, pseudonymous = catalog.audit_waiting(10)
    assert "results export --identify" in identified.xml and "110113" in identified.xml
    assert "110106" in pseudonymous.xml
    catalog.close()


def test_the_time_chooses(node: tuple[Config, Catalog], tmp_path: Path) -> None:
    for number, at in enumerate((100.0, 200.0, 300.0), start=2):
        analysed(node, f"1.{number}", at, full())
    for since, until, count in ((None, None, 3), (200.0, None, 2), (None, 200.0, 1), (150.0, 250.0, 1)):
        out = tmp_path / "out.csv"
        assert results_export.run(node[0], out, since, until, parquet=False, identify=False) == count
        assert len(table(out)) == count


def test_parquet_has_the_same_with_types(node: tuple[Config, Catalog], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is in the extra dicomnode[training]")
    analysed(node, "1.2", 100.0, full())
    analysed(node, "1.3", 200.0, replace(full(), risk=None, conditions=None, change=None))
    results_export.run(node[0], tmp_path / "out.parquet", None, None, parquet=True, identify=False)
    results_export.run(node[0], tmp_path / "out.csv", None, None, parquet=False, identify=False)
    made = parquet.read_table(tmp_path / "out.parquet")
    assert made.column_names == list(table(tmp_path / "out.csv")[0])
    assert str(made.schema.field("lungs_haa_percent").type) == "double"
    assert str(made.schema.field("generation").type) == "int64"
    assert made.to_pylist()[1]["bundle"] is None


def test_without_pyarrow_it_says_what_to_do(
    node: tuple[Config, Catalog], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"needs pyarrow, of the extra training .*; or give --csv"):
        results_export.run(node[0], tmp_path / "out", None, None, parquet=True, identify=False)
    assert not (tmp_path / "out").exists()


def test_the_command(node: tuple[Config, Catalog], tmp_path: Path) -> None:
    analysed(node, "1.2", 100.0, full())
    path = str(tmp_path / "ae_config.toml")
    out = str(tmp_path / "q.csv")
    done = CliRunner().invoke(app, ["results", "export", "--config", path, "--csv", out, "--since", "2d"])
    assert (done.exit_code, done.output) == (0, f"{out}: 0 rows\n")
    done = CliRunner().invoke(app, ["results", "export", "--config", path, "--csv", out, "--identify"])
    assert done.output == f"{out}: 1 row, WITH PATIENT DATA\n"
    for wrong in (["--csv", out, "--parquet", out], []):
        with pytest.raises(UsageError, match="either --csv OUT or --parquet OUT"):
            CliRunner().invoke(app, ["results", "export", "--config", path, *wrong], catch_exceptions=False)
