"""The kinds of destinations. A third one needs its class of the configuration and its entry in `KINDS`, no more."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NoReturn, get_args

import pytest
from pydantic import Discriminator, Field, Tag

from dicomnode import config
from dicomnode.config import DestinationTable, DicomDestinationTable, StowDestinationTable, destination, loading
from dicomnode.errors import ConfigurationError, PeerRejectedError
from dicomnode.network.association import Sent
from dicomnode.operations import checks
from dicomnode.outbound import destinations, peers
from dicomnode.service.processes import receiver_settings
from tests.conftest import ROOT


class FolderDestinationTable(DestinationTable):
    """A shared folder."""

    kind: Literal["folder"] = Field("folder", description="files copied to folder")
    folder: Path = Field(description="give the folder")


@dataclass(frozen=True)
class FolderDestination:
    """A `Destination` on a disk."""

    table: FolderDestinationTable
    answers: ClassVar[str] = "as a folder"

    @property
    def name(self) -> str:
        return self.table.name

    def echo(self) -> float:
        if not self.table.folder.is_dir():
            raise PeerRejectedError(f"{self.table.folder} is no folder")
        return 0.001

    def send(self, paths: Sequence[Path], on_result: Callable[[Path, Sent], None] | None = None) -> list[Sent]:
        return [Sent(Path(shutil.copy(path, self.table.folder)).stem, 0, "stored") for path in paths]

    def request_commitment(self, _transaction_uid: str, _objects: Sequence[tuple[str, str]]) -> NoReturn:
        raise PeerRejectedError("a folder commits to nothing")


Three = Annotated[
    Annotated[DicomDestinationTable, Tag("dicom")]
    | Annotated[StowDestinationTable, Tag("stow")]
    | Annotated[FolderDestinationTable, Tag("folder")],
    Discriminator(destination._kind_of),
]


class ThreeKinds(config.Config):
    destination: tuple[Three, ...] = Field((), validate_default=True)  # type: ignore[assignment]


@pytest.fixture
def third_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "Config", ThreeKinds)
    monkeypatch.setitem(destinations.KINDS, "folder", FolderDestination)


def write(tmp_path: Path, more: str = "", settle: str = "") -> Path:
    path = tmp_path / "ae_config.toml"
    path.write_text(
        f'[settle]\n{settle}\n[[destination]]\nname = "share"\nkind = "folder"\nfolder = "{tmp_path / "share"}"\n{more}'
    )
    return path


@pytest.mark.usefixtures("third_kind")
def test_a_third_kind_is_found_asked_and_sent_to_by_its_name(tmp_path: Path) -> None:
    path = write(tmp_path)
    loaded = config.load(path)
    (before,) = checks._peers(loaded)
    assert (before.what, before.ok, before.text) == ("destination share", False, f"{tmp_path / 'share'} is no folder")
    (tmp_path / "share").mkdir()
    (after,) = checks._peers(loaded)
    assert (after.ok, after.text) == (True, "answered as a folder in 1 ms")
    (tmp_path / "1.2.3.dcm").write_bytes(b"an object")
    assert peers.find("share", path).send([tmp_path / "1.2.3.dcm"]) == [Sent("1.2.3", 0, "stored")]
    assert (tmp_path / "share" / "1.2.3.dcm").read_bytes() == b"an object"


@pytest.mark.usefixtures("third_kind")
def test_a_third_kind_that_is_no_dicom_peer_is_nothing_that_only_such_a_peer_can_be(tmp_path: Path) -> None:
    assert receiver_settings(config.load(write(tmp_path))).move_to == ()
    with pytest.raises(ConfigurationError, match=r"settle.count_at = 'share' is not the name of a DICOM destination"):
        config.load(write(tmp_path, settle='count_at = "share"'))


@pytest.mark.usefixtures("third_kind")
@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("port = 104\n", "destination[1].port: does not apply to kind = 'folder': remove it, or change the kind"),
        (
            "commitment = true\n",
            "destination[1].commitment = True: this kind of destination has no storage commitment",
        ),
        ('[[destination]]\nname = "a"\nkind = "fodler"\n', "perhaps you meant 'folder'; give 'dicom' (C-STORE to"),
        ('[[destination]]\nname = "a"\nkind = "x"\n', "or 'folder' (files copied to folder)"),
        ("[[destination]]\nfolder = 'x'\n", "destination[2].folder: does not apply to kind = 'dicom'"),
    ],
)
def test_mistakes_with_a_third_kind_are_told_as_with_the_others(tmp_path: Path, more: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        config.load(write(tmp_path, more))
    assert says in str(caught.value)


def test_each_kind_that_may_be_configured_can_be_reached() -> None:
    union = get_args(get_args(destination.Destination)[0])
    known = {get_args(get_args(one)[0].model_fields["kind"].annotation)[0] for one in union}
    assert known == set(destinations.KINDS)


def test_no_other_code_asks_what_kind_a_destination_is() -> None:
    package = ROOT / "dicomnode"
    named = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for kind in destinations.KINDS
        if f'"{kind}"' in path.read_text("utf-8")
    }
    assert named == {"config/destination.py", "outbound/destinations/__init__.py"}


def test_dicomweb_refuses_commitment_for_good() -> None:
    web = destinations.reach(StowDestinationTable(name="web", url="https://h/dicom-web"))
    with pytest.raises(PeerRejectedError, match=r"web \(https://h/dicom-web\) does not support storage commitment"):
        web.request_commitment("1.2.3", [])
