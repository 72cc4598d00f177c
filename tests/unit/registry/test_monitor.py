"""Model monitoring: planted drift is found in time, quiet years stay quiet, outcomes are compared as others do it."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from lifelines import KaplanMeierFitter
from sksurv.metrics import cumulative_dynamic_auc
from sksurv.util import Surv
from typer.testing import CliRunner

from dicomnode import config
from dicomnode.analysis.risk.reference import ReferenceDistribution
from dicomnode.cli import app
from dicomnode.errors import UsageError
from dicomnode.monitoring.collector import Metrics
from dicomnode.registry import drift, latest_look, monitor, observed
from dicomnode.registry.drift import ScanValue
from dicomnode.registry.monitor import ModelMonitor, ServedBundle, look
from dicomnode.registry.monitor_page import page
from dicomnode.registry.monitoring_files import as_json
from dicomnode.registry.monitoring_files import monitor as write_files
from dicomnode.service import conditions
from dicomnode.service.alerts import Alerts
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.registry import RegistryOutcome, RegistryScan
from tests.helpers import populations
from tests.helpers.populations import BUNDLE, MONDAY, WEEK_S, Population

#: By week 10 of the stream, which begins in week 2 of 2026.
BY_WEEK_10 = {"2026-W09", "2026-W10", "2026-W11"}


@pytest.fixture(scope="module")
def known() -> ReferenceDistribution:
    return populations.population(300, 1).reference()


@pytest.fixture(scope="module")
def clinic() -> Population:
    return populations.population(500, 2)


def seen(known: ReferenceDistribution | None, stream: list[RegistryScan], weeks: int, month: str) -> ModelMonitor:
    served = ServedBundle("bundle", BUNDLE, known)
    return look(served, stream, list(populations.risks_of(stream)), [], month, MONDAY + weeks * WEEK_S)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (populations.another_kernel, {"kernel"}),
        (populations.thicker, {"acquisition.spacing_z_mm", "acquisition.slice_thickness_mm"}),
        (populations.sicker, {"quantities.lungs.haa_percent", "risk"}),
    ],
)
def test_drift_of_week_8_is_found_by_week_10(
    known: ReferenceDistribution, clinic: Population, change: populations.Change, expected: set[str]
) -> None:
    found = seen(known, clinic.stream(10, 25, 3, change, first=8), 10, "2026-03")
    alarms = {row.name: row.alarms for row in found.drift if not row.scanner and row.alarms}
    assert expected <= set(alarms)
    assert {week for weeks in alarms.values() for week in weeks} <= BY_WEEK_10
    assert {row.name for row in found.raised} >= expected
    later = seen(known, clinic.stream(7, 25, 3), 7, "2026-02")
    assert not later.raised


@pytest.mark.parametrize("name", ["quantities.lungs.haa_percent", "acquisition.spacing_z_mm", "kernel", "outside"])
def test_fifty_quiet_years_give_no_alarm(clinic: Population, known: ReferenceDistribution, name: str) -> None:
    weeks, a_week = 50 * 52, 5
    values = [row for scan in clinic.scans if (row := monitor._row(scan, None, known).value(name)) is not None]
    drawn = np.random.default_rng(8).integers(len(values), size=weeks * a_week)
    stream = [ScanValue(str(n), n // a_week, values[k]) for n, k in enumerate(drawn)]
    found = drift.watch(name, "", stream, weeks, drift.limit_of(len(monitor.INPUTS), 0))
    assert found.alarms == () and found.scans == weeks * a_week


def test_the_stakes_are_worth_no_more_than_the_weeks_on_average() -> None:
    rng = np.random.default_rng(5)
    worth = []
    for run in range(300):
        stream = [ScanValue(f"{run} {n}", n // 2, float(v)) for n, v in enumerate(rng.normal(size=20))]
        worth.append(10 ** drift.watch("x", "", stream, 10, 99.0).evidence)
    assert np.mean(worth) < 10 + 4 * np.std(worth) / np.sqrt(len(worth))


def test_a_scanner_s_own_drift_is_its_own_and_later_scanners_change_nothing(clinic: Population) -> None:
    stream = clinic.stream(12, 60, 4)
    mine = {s.model for s in stream}
    one = sorted(mine)[0]
    moved = [
        replace(s, spacing_z_mm=3.0) if s.model == one and s.recorded_at > MONDAY + 6 * WEEK_S else s for s in stream
    ]
    found = seen(None, moved, 12, "2026-03")
    alone = {row.scanner for row in found.raised if row.scanner}
    assert alone and all(one in scanner for scanner in alone) and "no reference distribution" in found.note
    more = [*moved, replace(stream[-1], scan="new", model="Another", recorded_at=MONDAY + 11.9 * WEEK_S)]
    again = {(r.name, r.scanner): r.limit for r in seen(None, more, 12, "2026-03").drift}
    assert all(again[r.name, r.scanner] == r.limit for r in found.drift)


def test_an_alarm_is_news_for_eight_weeks() -> None:
    found = drift.Drift("x", "", 0.0, 6.0, (100,), 10)
    assert [found.is_raised(week) for week in (99, 100, 108, 109)] == [False, True, True, False]
    assert replace(found, alarms=(50, 100, 107, 108)).since == 100 and replace(found, alarms=()).since is None


def test_weeks_begin_on_monday_and_have_iso_names() -> None:
    assert drift.week_of(MONDAY - 1) + 1 == drift.week_of(MONDAY) == drift.week_of(MONDAY + WEEK_S - 1)
    assert monitor.named(drift.week_of(MONDAY)) == "2026-W02"
    assert monitor.named(0) == "1970-W01"


def test_outcomes_are_compared_as_others_do_it() -> None:
    rng = np.random.default_rng(6)
    count = 300
    risk = rng.uniform(0.02, 0.7, count)
    death = rng.exponential(1, count) * 5 / -np.log1p(-risk)
    lost = rng.uniform(0.5, 9, count)
    years, died = np.minimum(death, lost), death <= lost
    alive, _ = observed.survival(years, died, 5)
    fitted = KaplanMeierFitter().fit(years, died)
    assert alive == pytest.approx(float(fitted.predict(5)), abs=1e-12)
    both = Surv.from_arrays(died, years)
    theirs = cumulative_dynamic_auc(both, both, risk, [5.0])[0][0]
    assert observed.auc(years, died, risk, 5) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("patients", [60, 100, 300])
@pytest.mark.parametrize("steps", [(1.0,), (1.0, 1.25), (0.62504, 1.0, 1.25)])
def test_the_training_population_itself_has_not_changed(patients: int, steps: tuple[float, ...]) -> None:
    drawn = enumerate(populations.population(patients, 6).scans)
    tied = ((scan, steps[-1] if k % 3 == 2 else steps[0] if k % 20 else steps[k % len(steps)]) for k, scan in drawn)
    same = Population(tuple(replace(s, spacing_z_mm=mm, slice_thickness_mm=mm) for s, mm in tied), ())
    stability = seen(same.reference(), same.stream(4, 500, 7), 4, "2026-01").stability
    together = [one for one in stability if not one.scanner]  # one scanner alone is not the population
    assert {one.name for one in together} >= {"acquisition.spacing_z_mm", "acquisition.slice_thickness_mm"}
    assert [one for one in together if one.changed] == []
    assert max(one.index for one in together) < 0.05


def outcome(scan: RegistryScan, days: int, *, died: bool) -> RegistryOutcome:
    day = np.datetime64(scan.date) + days
    return RegistryOutcome(scan.patient, str(day) if died else "", "" if died else str(day), "", 0.0)


def test_observed_over_expected(clinic: Population) -> None:
    stream = clinic.stream(10, 30, 9)
    risks = list(populations.risks_of(stream))
    rng = np.random.default_rng(2)
    dies = {r.scan: rng.random() < r.risk[1] for r in risks}
    ends = [outcome(s, 200 if dies[s.scan] else 800, died=dies[s.scan]) for s in stream]
    one = observed.compare(stream, risks, ends)[0]
    assert one.years == 1 and one.patients == len(stream) and one.deaths == sum(dies.values())
    assert one.ratio is not None and one.low is not None and one.high is not None and one.auc is not None
    assert one.low < 1 < one.high and one.auc > 0.55
    doubled = [replace(r, risk={y: min(1.0, 2.5 * p) for y, p in r.risk.items()}) for r in risks]
    worse = observed.compare(stream, doubled, ends)[0]
    assert worse.high is not None and worse.high < 1
    assert observed.compare(stream[:3], risks, ends)[0].ratio is None


def test_weights_for_censoring_are_those_of_the_definition_where_times_are_tied() -> None:
    rng = np.random.default_rng(4)
    time, died, risk = rng.integers(1, 9, 80).astype(float), rng.random(80) < 0.5, rng.random(80).round(1)
    lost = [(m, ((time == m) & ~died).sum(), (time > m).sum()) for m in np.unique(time[~died])]
    weights, above = [], []
    for case in np.flatnonzero(died & (time <= 5)):
        weights.append(1 / np.prod([1 - ended / (ended + later) for m, ended, later in lost if m < time[case]]))
        above.append(np.mean((risk[case] > risk[time > 5]) + 0.5 * (risk[case] == risk[time > 5])))
    assert observed.auc(time, died, risk, 5) == pytest.approx(np.average(above, weights=weights), abs=1e-12)


@pytest.mark.parametrize("of_transplant", [False, True])
def test_outcomes_are_read_as_export_and_training_read_them(clinic: Population, *, of_transplant: bool) -> None:
    stream = [replace(s, date="2020-01-01") for s in clinic.stream(4, 15, 9)]
    early, late = stream[:10], stream[10:]
    dies = [RegistryOutcome(s.patient, "2020-06-01", "", "", 0.0) for s in early]
    lives = [RegistryOutcome(s.patient, "", "2020-02-01", "", 0.0) for s in late]
    # Those whose contact stands at 2020 come again in 2022, which the model did not read.
    again = [replace(s, scan=f"{s.scan} again", date="2022-01-01") for s in late]
    risks = list(populations.risks_of(stream))
    if of_transplant:
        dies = [replace(one, transplant_date="2020-05-01") for one in dies[:3]] + dies[3:]
    (one, *_) = observed.compare([*stream, *again], risks, [*dies, *lives])
    assert (one.patients, one.deaths) == (len(stream), 7 if of_transplant else 10)
    assert one.ratio is not None, "who came again after a year has survived it"


def test_scans_from_the_day_of_a_transplant_on_do_not_count(clinic: Population) -> None:
    stream = [replace(s, date="2020-01-01") for s in clinic.stream(2, 15, 9)]
    days = ["2019-12-31", "2020-01-01", "2020-01-02"]
    ends = [RegistryOutcome(s.patient, "", "2023-01-01", day, 0.0) for s, day in zip(stream, days, strict=False)]
    assert {one.patients for one in observed.compare(stream, list(populations.risks_of(stream)), ends)} == {1}


def test_a_scanner_s_name_writes_nothing_else_on_the_terminal(
    clinic: Population, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = clinic.stream(10, 15, 3, populations.thicker, first=8)
    node = Recorded(tmp_path, [replace(scan, manufacturer="A", model="B\x1b[2J") for scan in stream])
    node.catalog.close()
    monkeypatch.setattr("dicomnode.cli.registry.time", SimpleNamespace(time=lambda: MONDAY + 10 * WEEK_S))
    monkeypatch.setattr(os, "nice", lambda _: 0)
    done = CliRunner().invoke(app, ["registry", "monitor", "--config", str(tmp_path / "ae_config.toml")])
    assert done.exit_code == 0, done.output
    assert "changed: slice spacing, mm, A B\\x1b[2J, since 2026-W" in done.output and "\x1b" not in done.output


def test_the_page_is_the_same_each_time_and_names_nobody(known: ReferenceDistribution, clinic: Population) -> None:
    stream = clinic.stream(10, 20, 3, populations.thicker, first=8)
    found = seen(known, stream, 10, "2026-03")
    text = page(found, known)
    assert text == page(seen(known, stream[::-1], 10, "2026-03"), known) and "<svg" in text
    assert "slice spacing, mm, all scanners: since 2026-W" in text
    for shown in (text, as_json(found)):
        assert not [s for s in stream if s.scan in shown or s.patient in shown]
    few = seen(known, clinic.stream(4, 2, 3), 4, "2026-01")
    assert all(not row.medians for row in few.weeks if row.scans < monitor.FEWEST)
    page(seen(known, [], 1, "2026-01"), known)  # a registry without scans


class Recorded:
    """A node whose registry holds a stream."""

    def __init__(self, folder: Path, stream: list[RegistryScan]) -> None:
        path = folder / "ae_config.toml"
        path.write_text('[registry]\nrecord = true\n[[notify]]\nname = "it"\nkind = "email"\nto = ["a@b.example"]\n'
                        'sender = "n@b.example"\nserver = "127.0.0.1:9"\nsecurity = "none"\n')  # fmt: skip
        self.config = config.load(path)
        for one in ("spool", "results", "state"):
            getattr(self.config.storage, one).mkdir(parents=True)
        self.catalog = Catalog.open(self.config.catalog_url, self.config.storage.state)
        for scan in stream:
            self.catalog.put_scan(scan)


@pytest.fixture
def recorded(tmp_path: Path, clinic: Population) -> Iterator[Recorded]:
    node = Recorded(tmp_path, clinic.stream(10, 15, 3, populations.thicker, first=8))
    yield node
    node.catalog.close()


def test_an_alert_is_told_once_and_once_more_when_over(recorded: Recorded) -> None:
    now = MONDAY + 10 * WEEK_S
    write_files(recorded.config, recorded.catalog, now)
    found = {one.key: one for one in conditions.find(recorded.config, recorded.catalog, (), {}, now, "here")}
    drifted = found["drift-acquisition.spacing_z_mm"]
    assert drifted.is_bad and "slice spacing, mm (all scanners since 2026-W" in drifted.text
    assert found["drift-sex"].is_bad is False

    at = [now]
    alerts = Alerts(recorded.config, recorded.catalog, (), lambda: at[0], lambda: at[0])
    assert drifted.key in alerts.look_at_node() and drifted.key not in alerts.look_at_node()
    at[0] = now + 12 * WEEK_S
    write_files(recorded.config, recorded.catalog, at[0])
    over = []
    for _ in range(3):
        over += alerts.look_at_node()
        at[0] += 3600
    assert over.count(drifted.key) == 1


def test_metrics_tell_what_has_changed_and_no_patient(recorded: Recorded, tmp_path: Path) -> None:
    figures = Metrics(recorded.config, tmp_path, lambda: recorded.catalog)
    assert list(figures._model()) == []
    write_files(recorded.config, recorded.catalog, MONDAY + 10 * WEEK_S)
    values = {(s.name, *s.labels.values()): s.value for m in figures._model() for s in m.samples}
    assert values["dicomnode_model_drift", "acquisition.spacing_z_mm"] == 1
    assert values["dicomnode_model_drift", "sex"] == 0
    assert values["dicomnode_model_month_scans",] > 0
    assert {name for name, *_ in values} == {"dicomnode_model_drift", "dicomnode_model_month_scans"}


def test_the_files_of_a_month(recorded: Recorded, tmp_path: Path) -> None:
    now = MONDAY + 10 * WEEK_S
    assert latest_look.latest(recorded.config) is None
    done = write_files(recorded.config, recorded.catalog, now, "2026-02", tmp_path / "out")
    assert done.page.name == "2026-02.html" and json.loads(done.json.read_text())["month"] == "2026-02"
    assert latest_look.latest(recorded.config) is None, "an older month is no news"
    write_files(recorded.config, recorded.catalog, now)
    found = latest_look.latest(recorded.config)
    assert found is not None and found["month"] == "2026-03" and found["note"] == "no bundle is served"
    for wrong, message in (
        ("2026-3x", "write a year and a month"),
        ("9999-12", "write a year and a month"),
        ("2027-01", "has not begun"),
    ):
        with pytest.raises(UsageError, match=message):
            write_files(recorded.config, recorded.catalog, now, wrong)
    assert write_files(recorded.config, recorded.catalog, now, "0001-01").page.name == "0001-01.html"
    (recorded.config.registry.folder / "monitor" / "latest.json").write_text("[]")
    assert latest_look.latest(recorded.config) is None
