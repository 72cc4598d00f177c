"""Who is told of the work on a study: a UPS worklist and an MPPS provider, both optional."""

from typing import ClassVar, Self

from pydantic import Field, field_validator, model_validator
from pydicom.uid import UID

from dicomnode.config.remote import RemoteTable
from dicomnode.network import mpps, ups


class UpsTable(RemoteTable):
    """A UPS worklist (Unified Procedure Step, PS3.4 annex CC). Without this table there are no tasks."""

    peer_name: ClassVar[str] = "ups"

    perform: bool = Field(True, description="give true to perform tasks of the UPS worklist, else false")
    create: bool = Field(False, description="give true to create a task for each study that is accepted")
    workitem: tuple[str, str, str] | tuple[()] = Field(
        ("110001", "DCM", "Image Processing"),
        description="give the Scheduled Workitem Code of our tasks as [value, scheme, meaning], or [] for any",
    )
    label: str = Field("", max_length=64, description="give the Procedure Step Label of our tasks, or '' for any")
    every_s: float = Field(15, ge=0.2, description="give the interval between queries of the worklist, in seconds")
    wait_s: float = Field(86400, ge=0, description="give the seconds after which a task without its study is cancelled")
    timeout_s: float = Field(10, gt=0, le=120, description="give the seconds to wait for a response, up to 120")
    most: int = Field(500, ge=1, description="give the number of responses after which a query is cancelled")

    @field_validator("workitem", mode="before")
    @classmethod
    def _one_code(cls, value: object) -> object:
        # One message: the two kinds of tuple would each raise their own.
        if not isinstance(value, tuple) or len(value) not in (0, 3) or not all(isinstance(v, str) for v in value):
            raise ValueError("is not a code of three texts")
        return value

    @model_validator(mode="after")
    def _names_its_tasks(self) -> Self:
        if self.perform and not (self.workitem or self.label):
            raise ValueError(
                "perform = true needs workitem or label: otherwise the node would claim every task of the worklist"
            )
        return self

    @property
    def services(self) -> tuple[UID, ...]:
        """Pull, and push where tasks are created."""
        return (ups.PULL, ups.PUSH) if self.create else (ups.PULL,)


class MppsTable(RemoteTable):
    """An MPPS provider (Modality Performed Procedure Step, PS3.4 annex F). Without this table none is used."""

    peer_name: ClassVar[str] = "mpps"

    every_s: float = Field(5, ge=0.2, description="give the interval between checks of the jobs, in seconds")
    timeout_s: float = Field(10, gt=0, le=120, description="give the seconds to wait for a response, up to 120")
    retry_for_s: float = Field(172_800, ge=0, description="give the seconds after which a refused step is dropped")

    @property
    def services(self) -> tuple[UID, ...]:
        """The performed procedure step."""
        return (mpps.MPPS,)
