"""A UPS worklist and an MPPS provider that hold a performer to the rules of PS3.4 annexes CC and F."""

import ssl
from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.transport import ThreadedAssociationServer

from dicomnode.store.catalog.catalog import Catalog
from dicomnode.store.catalog.procedure_steps import ProcedureStep
from dicomnode.store.catalog.tables import procedure_steps

PUSH, PULL = "1.2.840.10008.5.1.4.34.6.1", "1.2.840.10008.5.1.4.34.6.3"
MPPS, VERIFICATION = "1.2.840.10008.3.1.2.3.3", "1.2.840.10008.1.1"


def set_back(catalog: Catalog, step: ProcedureStep) -> None:
    """As if the node had died before it noted what came after `step`."""
    mine = procedure_steps.c.step_uid == step.step_uid
    with catalog._write() as connection:
        connection.execute(procedure_steps.update().where(mine).values(vars(step)))


class _Peer:
    """Started, stopped and started again on one port; `broken` names every rule that was broken."""

    contexts: tuple[str, ...] = ()

    def __init__(self, port: int) -> None:
        self.port = port
        self.broken: list[str] = []
        self.answers: dict[str, int] = {}  # a status to answer with, by the kind of message
        self._server: ThreadedAssociationServer | None = None

    def start(self, tls: ssl.SSLContext | None = None) -> None:
        ae = AE("STEPS")
        for uid in (VERIFICATION, *self.contexts):
            ae.add_supported_context(uid)
        address = ("127.0.0.1", self.port)
        self._server = ae.start_server(address, block=False, ssl_context=tls, evt_handlers=self.handlers())

    def handlers(self) -> list[Any]:
        raise NotImplementedError

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def _rule(self, holds: object, text: str) -> None:
        if not holds:
            self.broken.append(text)


class UpsServer(_Peer):
    """Tasks by UID. `keys` are the transaction UIDs of those in progress, `told` each progress text in its order."""

    contexts = (PULL, PUSH)

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.tasks: dict[str, Dataset] = {}
        self.keys: dict[str, str] = {}
        self.told: dict[str, list[str]] = {}
        self.questions: list[Dataset] = []

    def handlers(self) -> list[Any]:
        return [
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_N_CREATE, self._create),
            (evt.EVT_N_ACTION, self._action),
            (evt.EVT_N_SET, self._set),
        ]

    def table(self, more: str = "") -> str:
        return f'[ups]\nae_title = "STEPS"\nhost = "127.0.0.1"\nport = {self.port}\ntimeout_s = 20\n{more}\n'

    def schedule(self, step_uid: str, study_uid: str, code: str = "110001", state: str = "SCHEDULED") -> None:
        task, workitem, source = Dataset(), Dataset(), Dataset()
        workitem.CodeValue, workitem.CodingSchemeDesignator, workitem.CodeMeaning = code, "DCM", "test"
        source.StudyInstanceUID = study_uid
        task.SOPClassUID, task.SOPInstanceUID = PUSH, step_uid
        task.ProcedureStepState, task.ProcedureStepLabel = state, "lungs"
        task.ScheduledWorkitemCodeSequence, task.InputInformationSequence = [workitem], [source]
        self.tasks[step_uid] = task

    def state(self, step_uid: str) -> str:
        return str(self.tasks[step_uid].ProcedureStepState)

    def claim_by_another(self, step_uid: str) -> None:
        self.tasks[step_uid].ProcedureStepState, self.keys[step_uid] = "IN PROGRESS", "1.2.3.4"

    def outputs(self, step_uid: str) -> dict[str, tuple[str, str, str]]:
        """(study, series, AE title) by SOP Instance UID of the Output Information Sequence."""
        (performed,) = self.tasks[step_uid].UnifiedProcedureStepPerformedProcedureSequence
        return {
            str(one.ReferencedSOPInstanceUID): (
                str(item.StudyInstanceUID),
                str(item.SeriesInstanceUID),
                str(item.DICOMRetrievalSequence[0].RetrieveAETitle),
            )
            for item in performed.OutputInformationSequence
            for one in item.ReferencedSOPSequence
        }

    def _find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        self.questions.append(event.identifier)
        if "find" in self.answers:
            yield self.answers["find"], None
            return
        # Only the state is matched: a performer has to look for itself whether a task is its own.
        for task in list(self.tasks.values()):
            if task.ProcedureStepState == event.identifier.ProcedureStepState:
                yield 0xFF00, task

    def _create(self, event: Any) -> tuple[int, Dataset | None]:
        task, uid = event.attribute_list, str(event.request.AffectedSOPInstanceUID)
        self._rule(event.request.AffectedSOPClassUID == PUSH, "N-CREATE names UPS Push")
        if uid in self.tasks:
            return 0x0111, None
        if task.ProcedureStepState != "SCHEDULED":
            return 0xC309, None
        for keyword in ("ScheduledProcedureStepPriority", "ProcedureStepLabel", "InputReadinessState",
                        "ScheduledProcedureStepStartDateTime", "StudyInstanceUID"):  # fmt: skip
            self._rule(task.get(keyword), f"{keyword} is type 1")
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "WorklistLabel", "AdmissionID",
                        "MedicalAlerts", "PregnancyStatus", "SpecialNeeds", "ScheduledHumanPerformersSequence",
                        "ReferencedRequestSequence", "ScheduledWorkitemCodeSequence"):  # fmt: skip
            self._rule(keyword in task, f"{keyword} is type 2")
        for keyword in ("ProcedureStepProgressInformationSequence", "UnifiedProcedureStepPerformedProcedureSequence"):
            self._rule(keyword in task and not task[keyword].value, f"{keyword} is there and empty")
        self._rule("TransactionUID" in task and not task.TransactionUID, "TransactionUID is there and empty")
        self._rule("SOPInstanceUID" not in task, "SOPInstanceUID is not in the attribute list")
        task.SOPClassUID, task.SOPInstanceUID = PUSH, uid
        self.tasks[uid] = task
        return 0x0000, Dataset()

    def _action(self, event: Any) -> tuple[int, Dataset | None]:
        uid, wanted = str(event.request.RequestedSOPInstanceUID), event.action_information
        self._rule(event.request.RequestedSOPClassUID == PUSH, "N-ACTION names UPS Push")
        self._rule(event.action_type == 1, "the action is Change UPS State")
        if "action" in self.answers:
            return self.answers["action"], None
        if uid not in self.tasks:
            return 0xC307, None
        task, key = self.tasks[uid], str(wanted.TransactionUID)
        state, to = self.state(uid), str(wanted.ProcedureStepState)
        if state == "SCHEDULED":
            if to != "IN PROGRESS":
                return 0xC310, None
            self.keys[uid] = key
        elif state == "IN PROGRESS":
            if to == "IN PROGRESS":
                return 0xC302, None
            if self.keys[uid] != key:
                return 0xC301, None
            if not self._is_final(task, to):
                return 0xC304, None
        elif state != to or self.keys[uid] != key:
            return 0xC300, None
        else:
            return {"COMPLETED": 0xB306, "CANCELED": 0xB304}[to], None
        task.ProcedureStepState = to
        return 0x0000, None

    @staticmethod
    def _is_final(task: Dataset, state: str) -> bool:
        """PS3.4 table CC.2.5-3, the column of the final state."""
        if state == "CANCELED":
            (now,) = task.get("ProcedureStepProgressInformationSequence") or [Dataset()]
            return bool(now.get("ProcedureStepCancellationDateTime"))
        (performed,) = task.get("UnifiedProcedureStepPerformedProcedureSequence") or [Dataset()]
        needed = ("PerformedStationNameCodeSequence", "PerformedProcedureStepStartDateTime",
                  "PerformedWorkitemCodeSequence", "PerformedProcedureStepEndDateTime")  # fmt: skip
        return all(performed.get(k) for k in needed) and "OutputInformationSequence" in performed

    def _set(self, event: Any) -> tuple[int, Dataset | None]:
        uid, change = str(event.request.RequestedSOPInstanceUID), event.modification_list
        self._rule(event.request.RequestedSOPClassUID == PUSH, "N-SET names UPS Push")
        self._rule("ProcedureStepState" not in change, "N-SET does not change the state")
        if "set" in self.answers:
            return self.answers["set"], None
        if uid not in self.tasks:
            return 0xC307, None
        if self.state(uid) in ("COMPLETED", "CANCELED"):
            return 0xC300, None
        if self.state(uid) == "SCHEDULED":
            return 0xC310, None
        if self.keys[uid] != str(change.get("TransactionUID")):
            return 0xC301, None
        del change.TransactionUID
        for item in change.get("ProcedureStepProgressInformationSequence") or []:
            self.told.setdefault(uid, []).append(str(item.get("ProcedureStepProgressDescription", "cancelled")))
        self.tasks[uid].update(change)
        return 0x0000, Dataset()


class MppsServer(_Peer):
    """Performed procedure steps by UID."""

    contexts = (MPPS,)

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.steps: dict[str, Dataset] = {}

    def handlers(self) -> list[Any]:
        return [(evt.EVT_N_CREATE, self._create), (evt.EVT_N_SET, self._set)]

    def table(self, more: str = "") -> str:
        return f'[mpps]\nae_title = "STEPS"\nhost = "127.0.0.1"\nport = {self.port}\ntimeout_s = 20\n{more}\n'

    def _create(self, event: Any) -> tuple[int, Dataset | None]:
        step, uid = event.attribute_list, str(event.request.AffectedSOPInstanceUID)
        if "create" in self.answers:
            return self.answers["create"], None
        if uid in self.steps:
            return 0x0111, None
        (scheduled,) = step.ScheduledStepAttributesSequence
        self._rule(scheduled.get("StudyInstanceUID"), "the study is named")
        for keyword in ("AccessionNumber", "ReferencedStudySequence", "RequestedProcedureID",
                        "RequestedProcedureDescription", "ScheduledProcedureStepID",
                        "ScheduledProcedureStepDescription", "ScheduledProtocolCodeSequence"):  # fmt: skip
            self._rule(keyword in scheduled, f"{keyword} is type 2")
        for keyword in ("PerformedProcedureStepID", "PerformedStationAETitle", "PerformedProcedureStepStartDate",
                        "PerformedProcedureStepStartTime", "Modality"):  # fmt: skip
            self._rule(step.get(keyword), f"{keyword} is type 1")
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "ReferencedPatientSequence",
                        "PerformedStationName", "PerformedLocation", "PerformedProcedureStepDescription",
                        "PerformedProcedureTypeDescription", "ProcedureCodeSequence", "StudyID",
                        "PerformedProcedureStepEndDate", "PerformedProcedureStepEndTime",
                        "PerformedProtocolCodeSequence", "PerformedSeriesSequence"):  # fmt: skip
            self._rule(keyword in step, f"{keyword} is type 2")
        self._rule(step.PerformedProcedureStepStatus == "IN PROGRESS", "it begins IN PROGRESS")
        self.steps[uid] = step
        return 0x0000, Dataset()

    def _set(self, event: Any) -> tuple[int | Dataset, Dataset | None]:
        uid, change = str(event.request.RequestedSOPInstanceUID), event.modification_list
        if "set" in self.answers:
            return self.answers["set"], None
        if uid not in self.steps:
            return 0x0112, None
        if self.steps[uid].PerformedProcedureStepStatus != "IN PROGRESS":
            status = Dataset()
            status.Status, status.ErrorID = 0x0110, 0xA710
            return status, None
        self._rule(all(element.tag in self.steps[uid] for element in change), "N-SET changes what was created")
        self._rule(change.get("PerformedProcedureStepEndDate"), "the end has a date")
        self._rule(change.get("PerformedProcedureStepEndTime"), "the end has a time")
        self._rule(change.get("PerformedSeriesSequence"), "an ended step has a series")
        for series in change.get("PerformedSeriesSequence") or []:
            self._rule(series.get("SeriesInstanceUID") and series.get("ProtocolName"), "the series' type 1 attributes")
            for keyword in ("PerformingPhysicianName", "OperatorsName", "SeriesDescription", "RetrieveAETitle",
                            "ReferencedImageSequence", "ReferencedNonImageCompositeSOPInstanceSequence"):  # fmt: skip
                self._rule(keyword in series, f"the series' {keyword} is type 2")
        self.steps[uid].update(change)
        return 0x0000, Dataset()
