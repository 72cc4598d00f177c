"""What a live association shows is what the conformance statement says: contexts, syntaxes, statuses, rejections."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context, build_role

from dicomnode.config import SYNTAXES
from dicomnode.conformance import created, network_tables, services
from dicomnode.conformance.sample import complete
from dicomnode.network import contexts
from dicomnode.network.association import Peer, send
from dicomnode.network.contexts import STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE, VERIFICATION
from dicomnode.reception import commitment_scp, query_retrieve_scp
from dicomnode.reception.c_store import ANSWERS
from dicomnode.reception.receiver import REJECTIONS
from tests.helpers.ct_files import ct_series, write
from tests.helpers.receiving import Receiving

QUERIES = [UID(f"1.2.840.10008.5.1.4.1.2.{root}.{n}") for root in (1, 2) for n in (1, 2, 3)]
#: What the statement does not have in the role of an SCP.
NOT_OFFERED = {
    "1.2.840.10008.5.1.4.34.6.1": "UPS Push",
    "1.2.840.10008.5.1.4.34.6.3": "UPS Pull",
    "1.2.840.10008.3.1.2.3.3": "MPPS",
    "1.2.840.10008.5.1.4.31": "Modality Worklist",
    "1.2.840.10008.1.20.2": "Storage Commitment Pull",
    "1.2.840.10008.5.1.4.1.1.200.4": "Protocol Approval FIND",
    "1.2.840.10008.5.1.4.1.1.201.2": "Inventory FIND",
    "1.2.840.10008.5.1.4.1.1.201.4": "Inventory GET",
    "1.2.840.10008.1.3.10": "Media Storage Directory",
    "1.3.12.2.1107.5.9.1": "a private class",
}
BATCH = 120


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiving]:
    callers = "".join(
        f'[[node.callers]]\nae_title = "{name}"\naddress = "127.0.0.1"\n{more}\n'
        for name, more in (("READER", "query = true"), ("SCANNER", ""))
    )
    running = Receiving(tmp_path_factory.mktemp("node"), node=callers)
    yield running
    running.stop()


@contextmanager
def associated(
    node: Receiving, asked: list[PresentationContext], calling: str = "SCANNER", roles: tuple[UID, ...] = ()
) -> Iterator[Association]:
    entity = AE(calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 60
    negotiated = [build_role(one, scp_role=True) for one in roles]
    association = entity.associate(
        "127.0.0.1", node.port, [build_context(VERIFICATION), *asked], "NODE", ext_neg=negotiated
    )
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def accepted(node: Receiving, asked: list[tuple[str, list[str]]], calling: str = "SCANNER") -> list[tuple[str, str]]:
    """(SOP class, transfer syntax) of each context that the node accepts, in the order in which they were asked for."""
    found = []
    for start in range(0, len(asked), BATCH):
        proposed = [build_context(sop_class, syntaxes) for sop_class, syntaxes in asked[start : start + BATCH]]
        with associated(node, proposed, calling) as association:
            found += [
                (str(one.abstract_syntax), str(one.transfer_syntax[0]))
                for one in association.accepted_contexts
                if one.abstract_syntax != VERIFICATION
            ]
    return found


def test_every_storage_class_in_every_syntax(node: Receiving) -> None:
    sets = network_tables.syntax_sets()
    stated = {
        (sop_class, str(syntax)) for _, sop_class, name in network_tables.storage_table().rows for syntax in sets[name]
    }
    every = {str(syntax) for syntaxes in sets.values() for syntax in syntaxes}
    asked = [(str(one), [syntax]) for one in contexts.storage_classes() for syntax in sorted(every)]
    found = accepted(node, asked)
    assert len(found) == len(set(found)) > 3000
    assert set(found) == stated


def test_the_acceptors_choice_is_in_the_order_that_is_stated(node: Receiving) -> None:
    rows = network_tables.storage_table().rows
    for name, syntaxes in network_tables.syntax_sets().items():
        sop_class = next(uid for _, uid, of_set in rows if of_set == name)
        asked = [(sop_class, [*map(str, syntaxes[k:])][::-1]) for k in range(len(syntaxes))]
        assert accepted(node, asked) == [(sop_class, str(syntax)) for syntax in syntaxes], name


def test_no_other_transfer_syntax_is_accepted(node: Receiving) -> None:
    others = ["1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.6.1", "1.2.840.10008.1.20", "1.2.3.4"]
    assert accepted(node, [(str(CTImageStorage), [syntax]) for syntax in others]) == []


def test_verification_commitment_and_queries_are_offered_to_whom_it_is_stated(node: Receiving) -> None:
    uncompressed = [str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)]
    asked = [(str(one), [syntax]) for one in (STORAGE_COMMITMENT, *QUERIES) for syntax in uncompressed]
    for calling, queries in (("SCANNER", False), ("READER", True)):
        stated = [
            (str(one.abstract_syntax), str(syntax))
            for one in services.accepted(queries=queries)
            if one.abstract_syntax in (STORAGE_COMMITMENT, *QUERIES)
            for syntax in one.transfer_syntax
        ]
        assert sorted(accepted(node, asked, calling)) == sorted(stated)
        assert len(stated) == (14 if queries else 2)


@pytest.mark.parametrize("calling", ["SCANNER", "READER"])
def test_what_is_not_stated_is_not_accepted(node: Receiving, calling: str) -> None:
    asked = [(sop_class, [str(ImplicitVRLittleEndian)]) for sop_class in NOT_OFFERED]
    assert accepted(node, asked, calling) == []


def test_roles_are_what_is_stated(node: Receiving) -> None:
    both = (STORAGE_COMMITMENT, UID(CTImageStorage))
    with associated(node, [build_context(one) for one in both], "READER", both) as association:
        roles = {str(one.abstract_syntax): one.as_scp for one in association.accepted_contexts}
    stated = {
        str(one.abstract_syntax): bool(one.scu_role and one.scp_role)
        for one in services.accepted(queries=True)
        if one.abstract_syntax in both
    }
    assert stated == {str(one): True for one in both}
    assert {uid: roles[uid] for uid in stated} == stated


# Statuses


def test_statuses_of_storing(node: Receiving) -> None:
    image, *_ = ct_series()
    answers = {}
    with associated(node, [build_context(CTImageStorage)]) as association:
        answers["stored"] = association.send_c_store(image).Status
        answers["again"] = association.send_c_store(image).Status
        image.InstitutionName = "Other content"
        answers["other content"] = association.send_c_store(image).Status
        del image.StudyInstanceUID
        image.SOPInstanceUID = "1.2.826.0.1.9"
        answers["no study"] = association.send_c_store(image).Status
        image.StudyInstanceUID = "1.2.826.0.1.8"
        answers["another instance"] = association.send_c_store(image, originator_id=None).Status
    assert list(answers.values())[:4] == [0x0000, 0x0000, 0xC001, 0xC000]
    assert set(answers.values()) <= {one.status for one in ANSWERS}


def query(level: str, **keys: str) -> Dataset:
    identifier = Dataset()
    if level:
        identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


def test_statuses_of_queries(node: Receiving) -> None:
    find, move, _ = QUERIES[3:]
    with associated(node, [build_context(find), build_context(move)], "READER") as association:
        answers = [
            [status.Status for status, _ in association.send_c_find(query("STUDY", StudyInstanceUID="1.2.3"), find)],
            [status.Status for status, _ in association.send_c_find(query("", PatientID="1"), find)],
            [status.Status for status, _ in association.send_c_move(query("STUDY"), "NOWHERE", move)],
        ]
    assert answers == [[0x0000], [0xA900], [0xA801]]
    assert {one for some in answers for one in some} <= {one.status for one in query_retrieve_scp.ANSWERS}


def test_statuses_of_commitment(node: Receiving) -> None:
    request = Dataset()
    request.TransactionUID = "1.2.3"
    answers = []
    with associated(node, [build_context(STORAGE_COMMITMENT)]) as association:
        for action in (2, 1):
            status, _ = association.send_n_action(request, action, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
            answers.append(status.Status)
    assert answers == [0x0123, 0x0115]
    assert set(answers) <= {one.status for one in commitment_scp.ANSWERS}


@pytest.mark.parametrize(
    ("calling", "called", "rejection"), [("STRANGER", "NODE", (1, 1, 3)), ("SCANNER", "OTHER", (1, 1, 7))]
)
def test_rejections(node: Receiving, calling: str, called: str, rejection: tuple[int, int, int]) -> None:
    association = AE(calling).associate("127.0.0.1", node.port, [build_context(VERIFICATION)], called)
    answer = association.acceptor.primitive
    assert association.is_rejected and answer is not None
    assert (answer.result, answer.result_source, answer.diagnostic) == rejection
    assert rejection in REJECTIONS


# As SCU


def test_results_are_proposed_as_it_is_stated(tmp_path: Path) -> None:
    made = [one.encode(complete(parts=False)) for one in created.CREATED if one.kind is not None]
    paths = write(made, tmp_path)
    came: set[tuple[str, str]] = set()

    def requested(event: evt.Event) -> None:
        for one in event.assoc.requestor.primitive.presentation_context_definition_list:
            came.update((str(one.abstract_syntax), str(syntax)) for syntax in one.transfer_syntax)

    pacs = AE("PACS")
    sent = sorted({(UID(str(one.SOPClassUID)), UID(str(one.file_meta.TransferSyntaxUID))) for one in made})
    for sop_class, _ in sent:
        pacs.add_supported_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
    handlers = [(evt.EVT_REQUESTED, requested), (evt.EVT_C_STORE, lambda _: 0)]
    server = pacs.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        port = server.server_address[1]
        for preferred in SYNTAXES.values():
            peer = Peer("pacs", "PACS", "127.0.0.1", port, preferred_syntax=preferred)
            assert len(send(peer, paths)) == len(paths)
    finally:
        server.shutdown()
    storage = (one for one in services.services(sent) if one.name.startswith("Storage ("))
    (stated,) = (one for one in storage if one.entity == services.SENDER)
    assert came == {(str(c.abstract_syntax), str(syntax)) for c in stated.offered for syntax in c.transfer_syntax}
