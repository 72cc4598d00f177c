"""Files of the spool read back: their recorded digest, and what the catalogue holds of them."""

import hashlib
import struct
import time
from dataclasses import asdict
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from dicomnode.reception.header import parse
from dicomnode.store.records import Instance

#: Preamble, prefix, and the element (0002,0000), whose value is the length of what follows of group 2 (PS3.10 7.1).
_META_START = 144


def split(content: bytes) -> tuple[bytes, bytes]:
    """(preamble and file meta group, dataset) of a file that the receiver wrote.

    Raises:
        ValueError: it is no such file.
    """
    if content[128:132] != b"DICM" or len(content) < _META_START:
        raise ValueError("it does not start like a DICOM file")
    (length,) = struct.unpack_from("<L", content, _META_START - 4)
    return content[: _META_START + length], content[_META_START + length :]


def digest(path: Path) -> str:
    """Return the SHA-256 that the catalogue should have: of the dataset's bytes.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no file that the receiver wrote.
    """
    return hashlib.sha256(split(path.read_bytes())[1]).hexdigest()


def read_instance(path: Path) -> Instance:
    """Return what the receiver would have recorded, but for the association: nobody knows which it was.

    The patient hash is not keyed yet (`patient_key.PatientKey.keyed`): the catalogue has the key.

    Raises:
        ValueError: the file is no instance.
    """
    try:
        content = path.read_bytes()
        dataset = split(content)[1]
        header = parse(dataset, read_file_meta_info(path).TransferSyntaxUID)
    except (OSError, InvalidDicomError, AttributeError) as error:
        raise ValueError(f"the file cannot be read ({type(error).__name__})") from error
    facts = asdict(header)
    del facts["is_own"]
    return Instance(
        **facts,
        path=str(path),
        sha256=hashlib.sha256(dataset).hexdigest(),
        size=len(content),
        received_at=time.time(),
        association_id=None,
    )
