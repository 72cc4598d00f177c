from io import BytesIO

import pytest
from pydicom.filereader import dcmread
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import create_file_meta, encode_file_meta

from dicomnode.network.file_meta import encode


@pytest.mark.parametrize("instance", ["1.2.3", "1.2.34", "1." + "2" * 62])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_same_bytes_as_pydicom(instance: str, syntax: UID) -> None:
    meta = create_file_meta(sop_class_uid=CTImageStorage, sop_instance_uid=UID(instance), transfer_syntax=syntax)
    assert encode(CTImageStorage, instance, syntax) == b"\0" * 128 + b"DICM" + encode_file_meta(meta)


def test_pydicom_reads_it() -> None:
    meta = dcmread(BytesIO(encode(CTImageStorage, "1.2.3", ExplicitVRLittleEndian))).file_meta
    assert meta.MediaStorageSOPInstanceUID == "1.2.3"
    assert meta.TransferSyntaxUID == ExplicitVRLittleEndian
