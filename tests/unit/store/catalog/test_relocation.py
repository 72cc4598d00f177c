"""What a restore changes in the catalogue, on both databases."""

from pathlib import Path

import pytest
from sqlalchemy import String, create_engine, inspect

from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.relocation import PATHS
from dicomnode.store.records import Instance

STUDY = "1.2"

#: Columns of text that hold no path of a file.
NO_PATHS = {
    "acceptances": "attributes patient_hash study_uid who",
    "alembic_version": "version_num",
    "alert_messages": "event_id receiver state text",
    "alerts": "host key text",
    "associations": "address called_ae calling_ae closed receiver_run",
    "audit_outbox": "event message_id xml",
    "audit_tallies": "channel patient_id patient_name sop_class_uid study_uid",
    "awaited": "prior_uid state study_uid",
    "bulk_studies": "how patient study_uid",
    "commitments": "destination study_uid transaction_uid",
    "console_sessions": "issuer name role token",
    "console_tokens": "calling_ae name role token",
    "console_users": "name password role",
    "conflicts": "sha256 sop_instance_uid study_uid",
    "corrections": "action code patient_hash sha256 sop_instance_uid study_uid successor who",
    "deliveries": "destination object sop_class_uid sop_instance_uid state study_uid text",
    "events": "event_id reason state study_uid",
    "instances": "image_type modality orientation patient_hash series_uid sha256 sop_class_uid sop_instance_uid "
    "study_uid",
    "jobs": "reason state study_uid",
    "late_orders": "order_key study_uid",
    "orders": "accession_number key patient_hash scheduled study_uid",
    "owed_reports": "objects requester transaction_uid",
    "patient_keys": "fingerprint",
    "patients": "patient_hash study_uid",
    "priors": "method patient_hash series_uids state study_uid text",
    "procedure_steps": "kind reason state step_uid study_uid told transaction_uid",
    "reanalyses": "study_uid",
    "refusals": "caller why",
    "registry_forgotten": "patient",
    "registry_outcomes": "death_date last_contact_date patient transplant_date",
    "registry_risks": "bundle bundle_sha256 patient risk scan version",
    "registry_scans": "algorithm_digest date doubts features kernel kernel_family manufacturer model patient scan "
    "segmenter sex software_version",
    "removal_notices": "study_uid",
    "routings": "decision study_uid",
    "studies": "state study_uid",
    "study_labels": "accession_key called sender study_date study_uid",
    "transitions": "reason state study_uid",
    "workers": "name state version",
}


def record(catalog: Catalog, *paths: str) -> None:
    for number, path in enumerate(paths):
        uid = f"{STUDY}.{number}"
        catalog.record(Instance(uid, "1.9", STUDY, "1.2.3", path, uid, 1, 1.0, None, "a" * 64))


def paths(catalog: Catalog) -> list[str]:
    return [i.path for i in catalog.instances(STUDY)]


def test_every_column_of_text_is_known_to_hold_a_path_or_none(tmp_path: Path) -> None:
    """A migration has brought a column? If it holds a path of a file, add it to PATHS, else to NO_PATHS."""
    url = f"sqlite:///{tmp_path / 'catalog.sqlite'}"
    Catalog.open(url, tmp_path).close()
    engine = create_engine(url)
    there = inspect(engine)
    found = {
        f"{table}.{column['name']}"
        for table in there.get_table_names()
        for column in there.get_columns(table)
        if isinstance(column["type"], String)
    }
    engine.dispose()
    paths_ = {str(column) for column in PATHS}
    others = {f"{table}.{name}" for table, names in NO_PATHS.items() for name in names.split()}
    assert found == paths_ | others
    assert not paths_ & others


def test_paths_follow_their_folder_and_no_other(catalog: Catalog) -> None:
    record(catalog, "/old/spool/studies/a", "/old/spool2/studies/b", "/elsewhere/old/spool/c", "/old/spool")
    assert catalog.relocate([(Path("/old/spool"), Path("/new"))]) == 1
    assert paths(catalog) == ["/new/studies/a", "/old/spool2/studies/b", "/elsewhere/old/spool/c", "/old/spool"]


@pytest.mark.parametrize("new", ["/old/spool", "/old/spool/studies", "/old"])
def test_a_new_folder_may_lie_within_the_old_one_or_be_the_same(catalog: Catalog, new: str) -> None:
    record(catalog, "/old/spool/studies/a")
    catalog.relocate([(Path("/old/spool"), Path(new))])
    assert paths(catalog) == [f"{Path(new)}/studies/a"]


def test_of_folders_within_each_other_the_innermost_counts(catalog: Catalog) -> None:
    record(catalog, "/old/spool/a", "/old/results/b", "/old/c")
    moves = [("/old", "/x"), ("/old/spool", "/old/results"), ("/old/results", "/old")]
    catalog.relocate([(Path(old), Path(new)) for old, new in moves])
    assert paths(catalog) == ["/old/results/a", "/old/b", "/x/c"]


def test_deliveries_follow_too(catalog: Catalog) -> None:
    record(catalog, "/old/a")
    catalog.settle(STUDY, 2.0, None)
    catalog.plan_delivery(STUDY, 1, "pacs", "seg", "1.9", "1.9.1", "/old/r/g1/seg.dcm", now=3.0)
    catalog.relocate([(Path("/old/r"), Path("/new/r")), (Path("/old"), Path("/images"))])
    assert [d.path for d in catalog.deliveries(STUDY, 1)] == ["/new/r/g1/seg.dcm"]
    assert paths(catalog) == ["/images/a"]


def test_no_worker_of_before_keeps_its_lease(catalog: Catalog) -> None:
    lease = catalog.register_worker("old-0", "4")
    catalog.retire_workers()
    assert not catalog.beat(lease)
    assert catalog.workers("alive") == []
    assert catalog.declare_dead(0.0) == [], "nothing is left to give to others: the queue has done it"
