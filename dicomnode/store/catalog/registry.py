"""The registry in the catalogue's database: scans, outcomes and risks under pseudonyms. Times are UTC seconds.

How a pseudonym and a shifted date come about: `dicomnode.registry_format.pseudonyms`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, Table, func, select

from dicomnode.store.catalog.database import Database
from dicomnode.store.catalog.tables import registry_forgotten, registry_outcomes, registry_risks, registry_scans


@dataclass(frozen=True)
class RegistryScan:
    """One analysed scan under pseudonyms.

    Attributes:
        date: of the study, ISO, shifted by the patient's own number of days.
        age_years: at the study; 90 stands for everybody older. None where the images do not say.
        sex: F, M, O or "".
        doubts: codes of the flags of severity «error», joined by a space.
        features: `quantities.<region>.<name>` and `radiomics.<region>.<feature>`.
        volume: the file with the lungs' voxels, "" if none is kept.
    """

    scan: str
    patient: str
    date: str
    age_years: float | None
    sex: str
    manufacturer: str
    model: str
    kernel: str
    kernel_family: str
    slice_thickness_mm: float | None
    spacing_z_mm: float
    segmenter: str
    software_version: str
    algorithm_digest: str
    doubts: str
    features: Mapping[str, float]
    volume: str
    recorded_at: float


@dataclass(frozen=True)
class RegistryOutcome:
    """What became of a patient; ISO dates, shifted as the patient's scans are, "" where there is none."""

    patient: str
    death_date: str
    last_contact_date: str
    transplant_date: str
    imported_at: float


@dataclass(frozen=True)
class RegistryRisk:
    """What a bundle said of a scan: probability of death by horizon in years. `served`: it stood in the report."""

    scan: str
    bundle_sha256: str
    patient: str
    bundle: str
    version: str
    served: bool
    risk: Mapping[int, float]
    recorded_at: float


@dataclass(frozen=True)
class LeftRegistry:
    """What was removed of a patient: how many rows, and the files of the volumes, which are still there."""

    scans: int
    outcomes: int
    volumes: tuple[str, ...]


class RegistryRows(Database):
    """The registry's part of the catalogue."""

    def put_scan(self, scan: RegistryScan, risks: Iterable[RegistryRisk] = ()) -> bool:
        """Note a scan, in place of what was noted of it before. False: the patient was forgotten, nothing is noted."""
        with self._write() as connection:
            if _is_forgotten(connection, scan.patient):
                return False
            self._replace(connection, registry_scans, {**asdict(scan), "features": json.dumps(dict(scan.features))})
            # Where the scan was somebody else's until now, so were its risks.
            of_scan = registry_risks.c.scan == scan.scan
            connection.execute(registry_risks.update().where(of_scan).values(patient=scan.patient))
            for risk in risks:
                self._replace(connection, registry_risks, {**asdict(risk), "risk": json.dumps(dict(risk.risk))})
        return True

    def registry_scans(self) -> list[RegistryScan]:
        """Every scan, by patient and date."""
        query = select(registry_scans).order_by(registry_scans.c.patient, registry_scans.c.date, registry_scans.c.scan)
        with self._read() as connection:
            rows = connection.execute(query).mappings().all()
        return [RegistryScan(**{**row, "features": json.loads(row["features"])}) for row in rows]

    def latest_scan_dates(self) -> dict[str, str]:
        """Return the date of each patient's latest scan, shifted as all of the patient's are."""
        latest = func.max(registry_scans.c.date).label("latest")
        query = select(registry_scans.c.patient, latest).group_by(registry_scans.c.patient)
        with self._read() as connection:
            return {row.patient: row.latest for row in connection.execute(query)}

    def registry_risks(self) -> list[RegistryRisk]:
        """Every risk that a bundle gave, by scan and time."""
        query = select(registry_risks).order_by(registry_risks.c.scan, registry_risks.c.recorded_at)
        with self._read() as connection:
            rows = connection.execute(query).mappings().all()
        return [
            RegistryRisk(**{**row, "risk": {int(years): p for years, p in json.loads(row["risk"]).items()}})
            for row in rows
        ]

    def put_outcomes(self, outcomes: Sequence[RegistryOutcome]) -> tuple[int, int]:
        """Note outcomes, all or none, each in place of the patient's earlier one; forgotten patients are left out.

        Returns how many were noted, and how many of those belong to a patient with a scan.
        """
        noted = with_scan = 0
        with self._write() as connection:
            known = set(connection.execute(select(registry_scans.c.patient).distinct()).scalars())
            for outcome in outcomes:
                if not _is_forgotten(connection, outcome.patient):
                    self._replace(connection, registry_outcomes, asdict(outcome))
                    noted += 1
                    with_scan += outcome.patient in known
        return noted, with_scan

    def registry_outcomes(self) -> list[RegistryOutcome]:
        """Every outcome, by patient."""
        query = select(registry_outcomes).order_by(registry_outcomes.c.patient)
        with self._read() as connection:
            return [RegistryOutcome(**row) for row in connection.execute(query).mappings()]

    def leave_registry(self, patient: str, now: float) -> LeftRegistry:
        """Remove all rows of a patient, and keep the patient's next scans out."""
        with self._write() as connection:
            mine = registry_scans.c.patient == patient
            volumes = connection.execute(select(registry_scans.c.volume).where(mine)).scalars().all()
            removed = {
                table.name: connection.execute(table.delete().where(table.c.patient == patient)).rowcount
                for table in (registry_scans, registry_outcomes, registry_risks)
            }
            self._replace(connection, registry_forgotten, {"patient": patient, "forgotten_at": now})
        return LeftRegistry(
            removed[registry_scans.name], removed[registry_outcomes.name], tuple(v for v in volumes if v)
        )

    def withdraw_scan(self, scan: str) -> str:
        """Remove a scan and its risks. Returns the file of its volume, which is still there; "" where there is none."""
        with self._write() as connection:
            mine = registry_scans.c.scan == scan
            volume = connection.execute(select(registry_scans.c.volume).where(mine)).scalar()
            connection.execute(registry_scans.delete().where(mine))
            connection.execute(registry_risks.delete().where(registry_risks.c.scan == scan))
        return volume or ""

    def _replace(self, connection: Connection, table: Table, row: Mapping[str, object]) -> None:
        keys = [c.name for c in table.primary_key]
        rest = {k: v for k, v in row.items() if k not in keys}
        connection.execute(self._insert(table).values(**row).on_conflict_do_update(index_elements=keys, set_=rest))


def _is_forgotten(connection: Connection, patient: str) -> bool:
    mine = registry_forgotten.c.patient == patient
    return connection.execute(select(registry_forgotten.c.patient).where(mine)).scalar() is not None
