"""What every object carries: who made it, when, from which study; set last, over whatever the encoder chose."""

from datetime import datetime, timedelta, timezone
from typing import Final

from pydicom.dataset import Dataset
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR

from dicomnode.analysis.findings import Findings
from dicomnode.report import codes, source, uids
from dicomnode.report.context import MANUFACTURER, MODEL_NAME, Context, Kind
from dicomnode.report.wording import describe, plain

# One item a frame, and no text of ours in it: not worth a walk.
_WITHOUT_TEXT: Final = frozenset({"PerFrameFunctionalGroupsSequence", "PixelData"})


def finish(dataset: Dataset, kind: Kind, header: Dataset, findings: Findings, context: Context) -> None:
    """Set equipment, times and series of one of our objects, then carry over patient, study and order.

    Images take the order from the source's Request Attributes Sequence; structured reports have Referenced Request
    Sequence instead (`source.requests`).
    """
    dataset.SeriesDescription = describe(kind.label, findings, context.version)
    dataset.SeriesNumber = kind.number_after(context.highest_series_number)
    _equipment(dataset, context)
    contribution = Dataset()
    contribution.PurposeOfReferenceCodeSequence = [codes.item(codes.PROCESSING_EQUIPMENT)]
    _equipment(contribution, context)
    # IHE AI Results asks for it: it changes whenever an algorithm or its weights change.
    contribution.DeviceUID = uids.device(findings.algorithm_digest)
    dataset.ContributingEquipmentSequence = [contribution]
    _times(dataset, header, context)
    _require_ascii(dataset)
    source.carry_over(header, dataset, extra=() if dataset.Modality in ("SR", "KO") else ("RequestAttributesSequence",))
    if context.order is not None:
        source.add_accession_number(dataset, context.order)


def _equipment(dataset: Dataset, context: Context) -> None:
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = MODEL_NAME
    dataset.SoftwareVersions = plain(context.software_version)
    dataset.DeviceSerialNumber = plain(context.device_serial)
    if context.station_name:
        dataset.StationName = plain(context.station_name)
    if context.institution:
        dataset.InstitutionName = plain(context.institution)


def _times(dataset: Dataset, header: Dataset, context: Context) -> None:
    created = context.created.astimezone(_zone(header, context.created))
    date, time = created.strftime("%Y%m%d"), created.strftime("%H%M%S.%f")
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = date, time
    dataset.SeriesDate, dataset.SeriesTime = date, time
    dataset.ContentDate, dataset.ContentTime = date, time
    dataset.ContributingEquipmentSequence[0].ContributionDateTime = created.strftime("%Y%m%d%H%M%S.%f%z")


def _zone(header: Dataset, created: datetime) -> timezone:
    """Return the source's time zone where it states one.

    It then holds for every date and time of our object (C.12.1.1.8).
    """
    stated = source.text_bytes(header, "TimezoneOffsetFromUTC").decode("ascii", "replace")
    try:
        offset = datetime.strptime(stated, "%z").utcoffset()
    except ValueError:
        offset = created.utcoffset()
    return timezone(offset or timedelta())


def _require_ascii(dataset: Dataset) -> None:
    for element in dataset:
        if element.keyword in _WITHOUT_TEXT:
            continue
        if element.VR == "SQ":
            for item in element.value:
                _require_ascii(item)
        elif element.VR in CUSTOMIZABLE_CHARSET_VR:
            assert str(element.value).isascii(), f"{element.keyword} of ours is not ASCII"
