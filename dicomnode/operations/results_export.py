"""`dicomnode results export`: a table of what was found, for those who review the quality of the analyses.

A row is one analysed generation of a study. Names end in the unit. Without `identify` study and patient are named by
the registry's pseudonyms (`registry_format.pseudonyms`), and of times only the month of the analysis is told.
"""

import io
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dicomnode.analysis.findings import Findings
from dicomnode.config import Config
from dicomnode.errors import UsageError
from dicomnode.files import write_whole
from dicomnode.operations.audited import note_command, note_export
from dicomnode.operations.jobs import kept_findings
from dicomnode.operations.looking import text
from dicomnode.registry.key import load_pseudonyms
from dicomnode.registry_format.identity import patient_hash
from dicomnode.registry_format.pseudonyms import Pseudonyms
from dicomnode.registry_format.tables import write_csv
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.result_rows import AnalysedJob
from dicomnode.store.records import ARRIVED, Delivery

#: Of these regions all that is measured is told, of others volume and high-attenuation share.
_WHOLE = ("lungs", "right", "left")
_OF_PARTS = ("volume_ml", "haa_percent")
_FIRST = ("study", "patient", "generation", "state", "analysed_month")
_IDENTIFIED = (
    "study_uid", "patient_id", "issuer_of_patient_id", "accession_number", "study_date", "study_description",
    "generation", "state", "settled_at", "analysed_at",
)  # fmt: skip
#: Columns of whole numbers.
_WHOLE_NUMBERS = ("generation", "slices", "flags_warning", "flags_error", "change_interval_days")
Row = dict[str, Any]


def run(
    config: Config,
    out: Path,
    since: float | None,
    until: float | None,
    follow: Callable[[int, int], None] = lambda _done, _total: None,
    *,
    parquet: bool,
    identify: bool,
) -> int:
    """Write the table; returns how many rows it has. `since` and `until` are UTC seconds, None for no limit.

    Raises:
        UsageError: the node has never run, the key of the pseudonyms cannot be used, or pyarrow is not installed.
        SpoolError: the catalogue failed.
    """
    if parquet:
        _pyarrow()
    if not config.storage.database_url and not config.storage.state.is_dir():
        raise UsageError(f"{config.storage.state}: the node has never run with this configuration")
    if identify:
        note_command(config, "results export --identify", {"file": str(out.absolute())})
    else:
        note_export(config, str(out.absolute()), {"what": "pseudonymised results"})
    names = None if identify else load_pseudonyms(config.registry.folder)
    with closing(Catalog.reading(config.catalog_url, config.storage.state)) as catalog:
        rows = list(_rows(config, catalog, since, until, names, follow))
    columns = _columns(rows, identify=identify)
    if parquet:
        _write_parquet(out, columns, rows)
    else:
        write_csv(out, columns, rows)
    return len(rows)


def _rows(
    config: Config,
    catalog: Catalog,
    since: float | None,
    until: float | None,
    names: Pseudonyms | None,
    follow: Callable[[int, int], None],
) -> Iterator[Row]:
    jobs = catalog.analysed_jobs(since, until)
    for count, job in enumerate(jobs, start=1):
        found = kept_findings(config, job.study_uid, job.generation)  # what cannot be read is logged, and left out
        if found is not None and found.status == "analysed":
            sent = catalog.deliveries(job.study_uid, job.generation)
            yield {**_named(job, names), **_measured(found), **_delivered(sent)}
        follow(count, len(jobs))


def _named(job: AnalysedJob, names: Pseudonyms | None) -> Row:
    label = job.label
    if names is None:
        return {
            "study_uid": job.study_uid,
            "patient_id": label.patient_id,
            "issuer_of_patient_id": label.issuer,
            "accession_number": label.accession_number,
            "study_date": label.study_date,
            "study_description": label.description,
            "generation": job.generation,
            "state": job.state,
            "settled_at": text(job.settled_at),
            "analysed_at": text(job.analysed_at),
        }
    whose = patient_hash(label.patient_id.encode(), label.issuer.encode()) if label.patient_id else ""
    return {
        "study": names.scan(job.study_uid),
        "patient": names.patient(whose) if whose else "",
        "generation": job.generation,
        "state": job.state,
        "analysed_month": time.strftime("%Y-%m", time.gmtime(job.analysed_at)),
    }


def _measured(found: Findings) -> Row:
    """Return the numbers of findings, under names with their unit."""
    row: Row = {}
    if (series := found.series) is not None:
        row |= {
            "slices": series.slices,
            "spacing_z_mm": series.spacing_mm[0],
            "spacing_xy_mm": series.spacing_mm[2],
            "slice_thickness_mm": series.slice_thickness_mm,
            "manufacturer": series.manufacturer,
            "manufacturer_model": series.manufacturer_model,
            "kernel": series.kernel,
            "kernel_family": series.kernel_family,
            "contrast": {True: "yes", False: "no", None: ""}[series.contrast],
        }
    if (conditions := found.conditions) is not None:
        row |= {"noise_hu": conditions.noise_hu, "air_hu": conditions.air_hu}
    if (lungs := found.lungs) is not None:
        row |= {"segmenter": lungs.segmenter, "segmenter_version": lungs.segmenter_version}
        row |= {f"mask_{side}_ml": value for side, value in asdict(lungs.volume_ml).items()}
        if lungs.left_out_ml is not None:
            row |= {f"left_out_{side}_ml": value for side, value in asdict(lungs.left_out_ml).items()}
    for region in sorted(found.quantities, key=lambda name: (name not in _WHOLE, name)):
        for name, value in asdict(found.quantities[region]).items():
            if region in _WHOLE or name in _OF_PARTS:
                row[f"{region}_{name}"] = value
    return row | _risk(found) | _change(found) | _made_by(found)


def _risk(found: Findings) -> Row:
    risk = found.risk
    if risk is None:
        return {}
    row: Row = {}
    for one in risk.horizons:
        row |= {
            f"risk_{one.years}y_percent": 100 * one.probability,
            f"risk_{one.years}y_lower_percent": 100 * one.lower,
            f"risk_{one.years}y_upper_percent": 100 * one.upper,
        }
    return row | {
        "bundle": risk.bundle,
        "bundle_version": risk.version,
        "bundle_sha256": risk.bundle_sha256,
        "bundle_intended_use": risk.intended_use,
        "bundle_recalibrated_to": risk.recalibrated_to,
    }


def _change(found: Findings) -> Row:
    change = found.change
    if change is None:
        return {}
    row: Row = {"change_interval_days": round(change.interval_days)}
    for measure, delta in change.measures.items():
        name = measure.replace("_percent", "_points")  # a difference of shares
        row |= {f"change_{name}": delta.absolute, f"change_{name}_per_year": delta.per_year}
    return row


def _made_by(found: Findings) -> Row:
    count = Counter(flag.severity for flag in found.flags)
    return {
        "flags": " ".join(dict.fromkeys(flag.code for flag in found.flags)),
        "flags_warning": count["warning"],
        "flags_error": count["error"],
        "software_version": found.software_version,
        "algorithm_digest": found.algorithm_digest,
        "analysis_s": sum(found.timings_s.values()),
    }


def _delivered(sent: Sequence[Delivery]) -> Row:
    """Return how the results' way to each destination stands: «pacs 4/4 committed; archive 0/1 rejected»."""
    told = []
    for name in dict.fromkeys(one.destination for one in sent):
        mine = [one for one in sent if one.destination == name and one.kind == "results"]
        states = " ".join(dict.fromkeys(one.state for one in mine))
        if mine:
            told.append(f"{name} {sum(one.state in ARRIVED for one in mine)}/{len(mine)} {states}")
    return {"deliveries": "; ".join(told)}


def _columns(rows: Sequence[Row], *, identify: bool) -> list[str]:
    """Return the columns in the order in which a row has them; regions and horizons differ between rows."""
    columns = list(_IDENTIFIED if identify else _FIRST)
    for row in dict.fromkeys(map(tuple, rows)):  # rows with the same names add nothing
        at = 0
        for name in row:
            if name in columns:
                at = columns.index(name) + 1
            else:
                columns.insert(at, name)
                at += 1
    return columns


def _pyarrow() -> Any:
    try:
        import pyarrow  # noqa: PLC0415  (an extra)
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError:
        raise UsageError(
            "--parquet needs pyarrow, of the extra training (deploy/install.sh --upgrade --training); or give --csv"
        ) from None
    return pyarrow


def _write_parquet(out: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    arrow = _pyarrow()
    made = {}
    for name in columns:
        values = [row.get(name) for row in rows]
        if name in _WHOLE_NUMBERS:
            kind = arrow.int64()
        elif any(isinstance(value, float | int) for value in values):
            kind = arrow.float64()
        else:
            kind = arrow.string()
        made[name] = arrow.array(values, kind)
    packed = io.BytesIO()
    arrow.parquet.write_table(arrow.table(made), packed)
    write_whole(out, packed.getvalue())
