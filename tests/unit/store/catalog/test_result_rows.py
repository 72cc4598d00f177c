"""Which analyses there were, on both databases."""

from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.labels import Label, Unlabelled
from dicomnode.store.records import Instance


def test_jobs_by_the_time_of_their_analysis(catalog: Catalog) -> None:
    for number, at in enumerate((100.0, 200.0, 300.0), start=1):
        uid = f"1.{number}"
        catalog.record(Instance(f"{uid}.1", "1.9", uid, "1.5", "/x", "0" * 64, 1, at, None, "a" * 32))
        catalog.settle(uid, at, None)
        if number < 3:
            catalog.set_state(uid, 1, "analysed", now=at + 1)
            catalog.set_state(uid, 1, "delivered", now=at + 50)
    catalog.note_label(Unlabelled("1.1", 1, 1.0, None), Label("P-1"))
    found = catalog.analysed_jobs(None, None)
    assert [(j.study_uid, j.generation, j.state, j.settled_at, j.analysed_at) for j in found] == [
        ("1.1", 1, "delivered", 100.0, 101.0),
        ("1.2", 1, "delivered", 200.0, 201.0),
    ]
    assert [j.label.patient_id for j in found] == ["P-1", ""]
    assert [j.study_uid for j in catalog.analysed_jobs(150.0, None)] == ["1.2"]
    assert [j.study_uid for j in catalog.analysed_jobs(None, 201.0)] == ["1.1"]
