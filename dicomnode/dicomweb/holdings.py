"""What is held, for DICOMweb: images of the spool, and the results that stand, as they were sent.

What is held as doubtful, in quarantine, dropped or cancelled is not there, as in Query/Retrieve.
"""

from collections.abc import Callable, Collection, Iterable
from itertools import groupby
from pathlib import Path

from dicomnode.dicomweb.names import StudyNames
from dicomnode.dicomweb.problems import not_found
from dicomnode.logs import is_uid
from dicomnode.reception.holdings import Held, of_image, of_results
from dicomnode.store.catalog.catalog import Catalog


class WebHoldings:
    """Looks into a catalogue that cannot be written, and into the folder of the results. For several threads."""

    def __init__(self, reading: Callable[[], Catalog], results: Path, names: StudyNames) -> None:
        self._reading, self.results, self.names = reading, results, names

    @property
    def catalog(self) -> Catalog:
        """The catalogue, open to be looked at. Raises SpoolError."""
        return self._reading()

    def of_studies(self, study_uids: Collection[str]) -> dict[str, list[Held]]:
        """Return all objects of the studies, by study in their order, by two queries however many there are."""
        found: dict[str, list[Held]] = {uid: [] for uid in study_uids}
        images = self.catalog.web_instances(study_uids)
        for study_uid, members in groupby(images, key=lambda one: one.study_uid):
            found[study_uid] = [of_image(one) for one in members]
        for study_uid, results in self.results_of(study_uids).items():
            found[study_uid] += results
        return found

    def results_of(self, study_uids: Collection[str]) -> dict[str, list[Held]]:
        """Return the results that stand, by study; only of studies that have a generation that does."""
        standing = self.catalog.web_standing(study_uids).items()
        return {study_uid: list(of_results(self.results, study_uid, generation)) for study_uid, generation in standing}

    def objects(self, study_uid: str, series_uid: str = "", instance_uid: str = "") -> list[Held]:
        """Return the objects of a study, of a series, or the one that is named.

        Raises:
            WebError: 404: there is none.
            SpoolError: the catalogue failed.
        """
        named = [uid for uid in (study_uid, series_uid, instance_uid) if uid]
        if not all(map(is_uid, named)):
            raise not_found()
        found = [
            one
            for one in self.of_studies([study_uid])[study_uid]
            if series_uid in ("", one.series_uid) and instance_uid in ("", one.sop_instance_uid) and one.can_be_sent
        ]
        if not found:
            raise not_found()
        return found


def modalities(objects: Iterable[Held]) -> set[str]:
    """Return the modalities of objects."""
    return {one.modality for one in objects} - {""}
