"""What a restore changes in the catalogue, on both databases."""

from pathlib import Path

import pytest

from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.records import Instance

STUDY = "1.2"


def record(catalog: Catalog, *paths: str) -> None:
    for number, path in enumerate(paths):
        uid = f"{STUDY}.{number}"
        catalog.record(Instance(uid, "1.9", STUDY, "1.2.3", path, uid, 1, 1.0, None, "a" * 64))


def paths(catalog: Catalog) -> list[str]:
    return [i.path for i in catalog.instances(STUDY)]


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
