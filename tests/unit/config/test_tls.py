"""TLS in the configuration: who is called by it, who has to call by it, and what makes no sense."""

from pathlib import Path

import pytest

from dicomnode import config
from dicomnode.errors import ConfigurationError
from dicomnode.network.association import Peer
from dicomnode.network.identities import identity
from dicomnode.network.tls import Security, TlsFiles
from dicomnode.service.processes import receiver_settings

TLS = '[tls]\ncertificate = "tls/node.crt"\nkey = "/k/node.key"\nca_file = "tls/ca.crt"\n'
PEER = 'ae_title = "IT"\nhost = "h"\nport = 104\n'
TABLES = ["worklist", "priors", "ups", "mpps", "[destination]"]
PIN = "sha256:" + "ab" * 32


def load(tmp_path: Path, text: str) -> config.Config:
    path = tmp_path / "ae_config.toml"
    path.write_text(text, encoding="utf-8")
    return config.load(path)


def table(name: str, more: str) -> str:
    return f"[{name}]\n" + ('name = "pacs"\n' if name == "[destination]" else "") + PEER + more


def peer_of(loaded: config.Config) -> Peer:
    (found,) = [*loaded.remotes, *loaded.destination]
    assert found.peer is not None
    return found.peer


@pytest.mark.parametrize("name", TABLES)
def test_each_peer_can_be_called_by_tls(tmp_path: Path, name: str) -> None:
    files = TlsFiles(tmp_path / "tls/node.crt", Path("/k/node.key"), tmp_path / "tls/ca.crt")
    assert peer_of(load(tmp_path, TLS + table(name, ""))).security is None
    loaded = load(tmp_path, TLS + 'crl_file = "r.pem"\n' + table(name, f'tls = true\ncertificates = ["{PIN}"]\n'))
    with_crl = TlsFiles(files.certificate, files.key, files.ca_file, tmp_path / "r.pem")
    assert peer_of(loaded).security == Security(with_crl, (identity(PIN),))
    assert loaded.all_tls_files == (with_crl,)


@pytest.mark.parametrize("name", TABLES)
def test_a_peer_may_have_files_of_its_own(tmp_path: Path, name: str) -> None:
    own = 'tls = true\ntls_certificate = "a"\ntls_key = "b"\ntls_ca_file = "c"\n'
    wanted = TlsFiles(tmp_path / "a", tmp_path / "b", tmp_path / "c")
    security = peer_of(load(tmp_path, table(name, own))).security
    assert security is not None and security.files == wanted
    mixed = load(tmp_path, TLS + table(name, 'tls = true\ntls_ca_file = "c"\n'))
    security = peer_of(mixed).security
    assert security is not None
    assert (security.files.certificate, security.files.ca_file) == (tmp_path / "tls/node.crt", tmp_path / "c")
    assert len(mixed.all_tls_files) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (table("worklist", "tls = true\n"), "needs certificate, key and ca_file in the table [tls]"),
        (table("[destination]", "tls = true\n"), "pacs: tls = true needs"),
        (TLS + table("ups", f'certificates = ["{PIN}"]\n'), "certificates has no effect without tls = true"),
        (TLS + table("mpps", 'tls_ca_file = "x"\n'), "tls_ca_file has no effect without tls = true"),
        (TLS + table("priors", 'tls = true\ntls_key = "x"\n'), "give tls_certificate and tls_key together"),
        (TLS + table("priors", 'tls = true\ncertificates = ["ab"]\n'), "is not of the form sha256"),
        ("[node]\ntls_port = 2762\n", "tls_port = 2762 needs certificate, key and ca_file in the table [tls]"),
        (TLS + "[node]\nplain = false\n", "plain = false needs tls_port"),
        (TLS + "[node]\nport = 2762\ntls_port = 2762\n", "is node.port, which is without TLS"),
        (TLS + f'[[node.callers]]\nae_title = "A"\ncertificates = ["{PIN}"]\n', "'A' can prove its certificates"),
        (
            TLS + f'[node]\ntls_port = 1\n[[node.callers]]\nae_title = "A"\ncertificates = ["{PIN}"]\n'
            '[[node.callers]]\nae_title = "A"\naddress = "10.0.0.1"\n',
            "stands with and without certificates",
        ),
        ('[[node.callers]]\nae_title = "A"\ntls = true\nmove_to = "h:1"\n', "by TLS needs the table [tls]"),
        ('[tls]\ncertificate = "a"\nkey = "b"\n', "tls.ca_file: is missing; give the file of the trusted CAs"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(tmp_path, text)
    assert words in str(refused.value)


def test_the_receiver_gets_its_ports_and_who_has_to_prove_itself(tmp_path: Path) -> None:
    callers = (
        f'[[node.callers]]\nae_title = "CT"\ncertificates = ["{PIN}", "DNS:CT.example"]\nquery = true\n'
        'tls = true\nreport_to = "ct:2762"\nmove_to = "ct:2762"\n'
        '[[node.callers]]\nae_title = "OLD"\nmove_to = "old:104"\n'
    )
    loaded = load(tmp_path, TLS + "[node]\nplain = false\ntls_port = 2762\n" + callers)
    settings = receiver_settings(loaded)
    assert settings.ports == (2762,)
    assert settings.tls == loaded.tls_files
    ct, old = settings.callers
    assert ct.certificates == (identity(PIN), identity("DNS:ct.example"))
    assert settings.queriers == (ct,) and not old.certificates
    (report,), (moved, plain) = settings.report_to, settings.move_to
    assert loaded.tls_files is not None
    assert report.security == moved.security == Security(loaded.tls_files, ct.certificates)
    assert plain.security is None
