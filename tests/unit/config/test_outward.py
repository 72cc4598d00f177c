"""Destinations of kind fhir and hl7 in the configuration."""

from pathlib import Path

import pytest

from dicomnode import config
from dicomnode.audit.messages import AuditPeer
from dicomnode.errors import ConfigurationError
from dicomnode.outbound import destinations
from dicomnode.outbound.peers import audit_peer
from tests.helpers.certificates import Authority, toml

FHIR = '[[destination]]\nname = "ehr"\nkind = "fhir"\nurl = "https://ehr.example/fhir"\n'
HL7 = '[[destination]]\nname = "ris"\nkind = "hl7"\nhost = "127.0.0.1"\nport = 2575\n'


def load(tmp_path: Path, text: str) -> config.Config:
    path = tmp_path / "ae_config.toml"
    path.write_text(text)
    return config.load(path)


def test_a_fhir_server(tmp_path: Path) -> None:
    loaded = load(tmp_path, f'{FHIR}token = "file:t"\nca_file = "ca.pem"\npatient_systems = {{ "" = "urn:oid:1.2" }}\n')
    (table,) = loaded.destination
    assert isinstance(table, config.FhirDestinationTable)
    assert table.objects == ("measurements", "risk", "pdf")
    assert (table.token, table.ca_file) == (f"file:{tmp_path / 't'}", str(tmp_path / "ca.pem"))
    assert str(destinations.reach(table)) == "ehr (https://ehr.example/fhir)"
    assert audit_peer(loaded, "ehr") == AuditPeer("https://ehr.example/fhir", "ehr.example")


def test_an_hl7_receiver(tmp_path: Path) -> None:
    files = Authority(tmp_path / "ca").files("node")
    loaded = load(tmp_path, f'{HL7}tls = true\nreceiving_application = "RIS"\nobjects = ["risk"]\n{toml(files)}')
    (table,) = loaded.destination
    assert isinstance(table, config.Hl7DestinationTable)
    assert table.objects == ("risk",)
    assert table.security is not None
    assert table.security.files == files
    assert loaded.all_tls_files == (files,)
    assert str(destinations.reach(table)) == "ris (127.0.0.1:2575)"
    assert audit_peer(loaded, "ris") == AuditPeer("127.0.0.1:2575", "127.0.0.1")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f'{FHIR}objects = ["seg"]\n', "give a list of some of: measurements, risk, pdf"),
        (f"{FHIR}port = 104\n", "port: does not apply to kind = 'fhir'"),
        (f"{FHIR}commitment = true\n", "no storage commitment"),
        (f'{FHIR}segmentation = "labelmap"\n', "takes no segmentation"),
        (f"{HL7}reject_old = true\n", "takes no rejection note"),
        (f"{FHIR}patient_systems = {{ A = 7 }}\n", "give the URI of a Patient ID's system"),
        (FHIR.replace("https://", "https://user:secret@"), "without credentials"),
        (f'{FHIR.replace("https", "http")}token = "env:T"\n', "would be sent unencrypted"),
        (f"{HL7}tls = true\n", "needs certificate, key and ca_file in the table [tls]"),
        (f'{HL7}sending_facility = "A\\nB"\n', "give up to 100 printable characters"),
        (f'{HL7}processing_id = "X"\n', "give 'P' (production)"),
        (f'{HL7}ae_title = "RIS"\n', "ae_title: does not apply to kind = 'hl7'"),
        (f'{HL7}[[route]]\nname = "r"\nforward_to = ["ris"]\n', "destination 'ris' takes no images"),
        (f'[settle]\ncount_at = "ris"\n{HL7}', "is not the name of a DICOM destination"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    assert says in str(caught.value)


def test_results_are_read_from_the_file(tmp_path: Path) -> None:
    assert not load(tmp_path, "").results.attenuation_maps
    assert load(tmp_path, "[results]\nattenuation_maps = true\n").results.attenuation_maps
    with pytest.raises(ConfigurationError, match="attenuation_maps"):
        load(tmp_path, "[results]\nattenuation_map = true\n")
