"""Names, numbers and descriptions of all studies, in this process' memory, so that a search reads only what it finds.

In the database they are sealed (`store.catalog.labels`), and no index of a database can look into them; one over hashes
of their words or letters would give the words away to whoever counts them. To unseal 100,000 labels takes about a
second: that is done once, when the console starts; then before each search for those that are new. About 30 MB for
100,000 studies.
"""

import threading
from array import array
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import dictionary_VR

from dicomnode.network.matching import forms, has_wild_cards, like, pattern, value_matches
from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.labels import Label
from dicomnode.store.catalog.web_holdings import NamedStudies

#: What is remembered, by keyword.
REMEMBERED: Final[Mapping[str, str]] = {
    "PatientName": "patient_name", "PatientID": "patient_id", "PatientBirthDate": "birth_date", "PatientSex": "sex",
    "AccessionNumber": "accession_number", "StudyDescription": "description",
    "ReferringPhysicianName": "referring_physician",
}  # fmt: skip
_AT_ONCE: Final = 5_000
#: Studies without a label are looked for among those that came so long before the newest, seconds, or later: clocks of
#: several machines differ.
_MARGIN_S: Final = 600.0
#: What is outdated stays in memory until there is as much of it as of the rest, and more than this.
_MOST_OUTDATED: Final = 10_000


class StudyNames:
    """What labels say, as of the last look. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._columns = {keyword: _Column(dictionary_VR(keyword)) for keyword in REMEMBERED}
        self._noted = array("q")
        self._known = self._first = 0
        self._unread: set[int] = set()  # labels of a version that did not read names: an image is asked
        self._unlabelled: set[str] = set()
        self._newest = 0.0

    def look(self, catalog: Catalog) -> None:
        """Read the labels that are new. Raises SpoolError."""
        with self._lock:
            self._look(catalog)

    def named(self, catalog: Catalog, keys: Mapping[str, Sequence[str]]) -> NamedStudies:
        """Return which studies have what these keys ask for, of those that are remembered.

        Raises:
            SpoolError: the catalogue failed.
        """
        with self._lock:
            self._look(catalog)
            rows = np.ones(len(self._noted), bool)
            for keyword in keys.keys() & self._columns.keys():
                rows &= self._columns[keyword].rows_with(keys[keyword])
            noted = np.frombuffer(self._noted, np.int64)[rows].tolist()
            return NamedStudies(frozenset(self._unread.union(noted)), self._known, frozenset(self._unlabelled))

    def _look(self, catalog: Catalog) -> None:
        if len(self._noted) > 2 * self._first + _MOST_OUTDATED:
            self._begin()
        is_first = not self._known
        # Before the labels: a study that gets its label in between is known by both.
        newest = catalog.newest_image()
        self._unlabelled.update(catalog.without_label(self._newest - _MARGIN_S))
        self._newest = newest
        while True:
            new = catalog.labels_after(self._known, _AT_ONCE)
            for one in new:
                self._unlabelled.discard(one.study_uid)
                self._add(one.noted, one.label)
            if len(new) < _AT_ONCE:
                break
        if is_first:
            self._first = len(self._noted)

    def _add(self, noted: int, label: Label) -> None:
        self._known = noted
        if label.patient_name is None:
            self._unread.add(noted)
            return
        self._noted.append(noted)
        for keyword, name in REMEMBERED.items():
            self._columns[keyword].add(str(getattr(label, name) or ""))


class _Column:
    """Values of one attribute: each different one once, with the texts by which it is found."""

    def __init__(self, vr: str) -> None:
        self._vr, self._as_text = vr, has_wild_cards(vr)
        self._numbers: dict[str, int] = {}
        self._of_rows = array("q")
        self._forms: list[str] = []
        self._owners = array("q")

    def add(self, value: str) -> None:
        """Add the value of the next row; several stand in it as DICOM writes them."""
        is_new = value not in self._numbers
        number = self._numbers.setdefault(value, len(self._numbers))
        self._of_rows.append(number)
        if not is_new:
            return
        for one in filter(None, value.split("\\")):
            found = forms(self._vr, one) if self._as_text else [one]
            self._forms += found
            self._owners.extend([number] * len(found))

    def rows_with(self, wanted: Sequence[str]) -> NDArray[np.bool_]:
        """Return which rows have a value that is one of those wanted."""
        has = np.zeros(len(self._numbers), bool)
        owners = np.frombuffer(self._owners, np.int64)
        for one in wanted:
            has[owners[self._found(one)]] = True
        return has[np.frombuffer(self._of_rows, np.int64)]

    def _found(self, wanted: str) -> list[int]:
        """Return which forms match, as `value_matches` does: it is asked of every name that there is."""
        if not self._as_text:
            return [n for n, form in enumerate(self._forms) if value_matches(self._vr, (wanted,), form)]
        sought = pattern(self._vr, wanted)
        pieces = sought.split("*")
        if "?" in sought or len(pieces) > 3:
            literal = max(sought.replace("?", "*").split("*"), key=len)
            return [n for n, form in enumerate(self._forms) if literal in form and like(sought, form)]
        if len(pieces) == 1:
            return [n for n, form in enumerate(self._forms) if form == sought]
        first, last = pieces[0], pieces[-1]
        if len(pieces) == 2 and not last:
            return [n for n, form in enumerate(self._forms) if form.startswith(first)]
        if not first and not last:
            return [n for n, form in enumerate(self._forms) if pieces[1] in form]
        return [n for n, form in enumerate(self._forms) if form.startswith(first) and like(sought, form)]
