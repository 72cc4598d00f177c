"""Studies that a command brings, on both databases."""

from dicomnode.registry_format.identity import patient_hash
from dicomnode.store.catalog.bulk_studies import patient_of
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance

DAY_S = 86_400.0


def receive(catalog: Catalog, uid: str, patient: str = "a" * 32) -> None:
    catalog.record(Instance(f"{uid}.1", "1.9", uid, "1.5", "/x", "0" * 64, 1, 1.0, None, patient))


def test_it_comes_until_its_command_says_so_or_is_given_up(catalog: Catalog) -> None:
    assert catalog.bulk("1.2") is None
    assert catalog.begin_bulk("1.2", "import", keep=True, patient="", now=100.0)
    found = catalog.bulk("1.2")
    assert found is not None and found.keep
    assert found.is_coming(100.0) and found.is_coming(90.0) and not found.is_coming(101.0 + DAY_S)
    catalog.end_bulk("1.2", 200.0)
    found = catalog.bulk("1.2")
    assert found is not None and not found.is_coming(200.0)
    receive(catalog, "1.2")
    assert catalog.begin_bulk("1.2", "retrieve", keep=False, patient="", now=300.0)  # more of it comes
    found = catalog.bulk("1.2")
    assert found is not None and (found.how, found.keep, found.is_coming(300.0)) == ("retrieve", False, True)
    catalog.forget_bulk("1.2")
    assert catalog.bulk("1.2") is None


def test_what_came_by_itself_is_everybodys(catalog: Catalog) -> None:
    receive(catalog, "1.2")
    assert not catalog.begin_bulk("1.2", "retrieve", keep=True, patient="", now=100.0)
    assert catalog.bulk("1.2") is None


def test_results_that_stayed_are_sent_once_asked_for(catalog: Catalog) -> None:
    catalog.begin_bulk("1.2", "retrieve", keep=True, patient="", now=100.0)
    assert [catalog.send_bulk("1.2"), catalog.send_bulk("1.2"), catalog.send_bulk("1.3")] == [True, False, False]


def test_images_have_to_name_the_patient_who_was_asked_for(catalog: Catalog) -> None:
    def keyed(patient_id: str, issuer: str = "", way: str = "utf-8") -> str:
        return catalog.patient_key.keyed(patient_hash(patient_id.encode(way), issuer.encode(way)))

    def admits(patient_id: str, issuer: str, *images: str) -> bool:
        patient = patient_of(catalog.patient_key, patient_id, issuer)
        catalog.begin_bulk("1.2", "retrieve", keep=True, patient=patient, now=1.0)
        found = catalog.bulk("1.2")
        assert found is not None
        return found.is_of(images)

    assert admits("P-1", "", keyed("P-1"), keyed("P-1", "HOSP"))
    assert not admits("P-1", "", keyed("P-1"), keyed("P-2"))
    assert admits("P-1", "HOSP", keyed("P-1", "HOSP"), keyed("P-1"))
    assert not admits("P-1", "HOSP", keyed("P-1", "ELSEWHERE"))
    assert admits("Müller", "", keyed("Müller", way="latin-1")) and admits("Müller", "", keyed("Müller"))
    assert admits("P-1", "", keyed("P-1"), keyed(""))  # an object that names nobody, beside images that do
    assert not admits("P-1", "", keyed(""))
    assert admits("", "", keyed("P-9"))


def test_what_stays_here_is_removed_after_its_time(catalog: Catalog) -> None:
    for uid, keep in (("1.2", True), ("1.3", False)):
        catalog.begin_bulk(uid, "retrieve", keep=keep, patient="", now=1.0)
        receive(catalog, uid)
        catalog.settle(uid, 2.0, None)
        catalog.set_state(uid, 1, "analysed", now=3.0)
    assert [one.study_uid for one in catalog.releasable(1000.0, 10.0)] == ["1.2"]
