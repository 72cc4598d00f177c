"""What the audit trail hears of web clients (PS3.15 A.5.3.6, A.5.3.10): searches, and studies that are looked at.

A viewer asks for each frame by itself: who looks at a study is told once, and again after a while.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Final

from pydicom.dataset import Dataset
from pydicom.filebase import DicomFileLike
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicomnode.audit import messages, trail
from dicomnode.audit.messages import AuditPeer, AuditStudy
from dicomnode.dicomweb.query import WebQuery
from dicomnode.reception.holdings import Held
from dicomnode.store.catalog.audit import read_patient

_AGAIN_S: Final = 600.0
_MOST_REMEMBERED: Final = 10_000
#: Study Root Query/Retrieve Information Model: what a search is in the words of the trail.
_FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"


class WebTrail:
    """For several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._told: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    def looked_at(self, who: str, address: str, held: Sequence[Held]) -> None:
        """Note that somebody is given objects of one study."""
        if trail.source() is None or not self._is_new((who, address, held[0].study_uid)):
            return
        classes: dict[str, int] = {}
        for one in held:
            classes[one.sop_class_uid] = classes.get(one.sop_class_uid, 0) + 1
        whose = read_patient(held[0].path)
        study = AuditStudy(held[0].study_uid, classes, whose.accession_number)
        trail.note(messages.accessed, time.time(), study, whose.patient, user=f"{who} (DICOMweb)", address=address)

    def searched(self, who: str, address: str, query: WebQuery) -> None:
        """Note a search, before it is answered."""
        if trail.source() is not None:
            peer = AuditPeer(f"{who} (DICOMweb)", address)
            content = _identifier(query.level, query.keys)
            trail.note(messages.query, time.time(), peer, _FIND, content, str(ExplicitVRLittleEndian), incoming=True)

    def _is_new(self, key: tuple[str, str, str]) -> bool:
        now = self._clock()
        with self._lock:
            told = self._told.pop(key, None)
            is_new = told is None or now - told >= _AGAIN_S
            self._told[key] = now if is_new or told is None else told
            while len(self._told) > _MOST_REMEMBERED:
                self._told.popitem(last=False)
        return is_new


def _identifier(level: str, keys: Mapping[str, Sequence[str]]) -> bytes:
    asked = Dataset()
    asked.SpecificCharacterSet = "ISO_IR 192"
    asked.QueryRetrieveLevel = level
    try:
        for keyword, values in keys.items():
            setattr(asked, keyword, list(values) if len(values) > 1 else values[0])
        written = BytesIO()
        file = DicomFileLike(written)
        file.is_little_endian, file.is_implicit_VR = True, False
        write_dataset(file, asked)
    except Exception:  # noqa: BLE001  (whatever a client asks for: that it asked is told)
        return b""
    return written.getvalue()
