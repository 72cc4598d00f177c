"""A scanner for tests: small CT images, associations with a receiver, and C-STOREs of any bytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Protocol

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from dicomnode.network.contexts import VERIFICATION
from dicomnode.network.transport import RequestorEntity


class Listening(Protocol):
    """Anything that listens on 127.0.0.1."""

    port: int


@contextmanager
def associated(node: Listening, calling: str = "SCANNER", called: str = "NODE") -> Iterator[Association]:
    entity = RequestorEntity(calling)
    for sop_class in (VERIFICATION, CTImageStorage, SecondaryCaptureImageStorage):
        entity.add_requested_context(sop_class, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", node.port, ae_title=called)
    try:
        yield association
    finally:
        association.release()


def ct(number: int = 1, **changes: object) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = f"1.2.3.{number}"
    dataset.StudyInstanceUID = "1.2"
    dataset.SeriesInstanceUID = "1.2.3"
    dataset.PatientID = "SECRET-ID"
    dataset.PatientName = "Secret^Name"
    dataset.ImagePositionPatient = [0, 0, number]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def store_bytes(association: Association, data: bytes, sop_instance_uid: str = "1.2.3.1") -> int:
    """A C-STORE whose dataset is exactly these bytes."""
    request = C_STORE()
    request.MessageID = 7
    request.AffectedSOPClassUID = CTImageStorage
    request.AffectedSOPInstanceUID = sop_instance_uid
    request.Priority = 0
    request.DataSet = BytesIO(data)
    context = next(one for one in association.accepted_contexts if one.abstract_syntax == CTImageStorage)
    association._reactor_checkpoint.clear()
    association.dimse.send_msg(request, context.context_id)
    _, response = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return int(response.Status)


def rejection(association: Association) -> tuple[int, int, int]:
    assert association.is_rejected
    answer = association.acceptor.primitive
    assert answer is not None
    return answer.result, answer.result_source, answer.diagnostic  # type: ignore[return-value]
