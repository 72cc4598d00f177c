"""What is wrong with the files of TLS, or will be soon."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicomnode.errors import ConfigurationError
from dicomnode.network.certificates import inspect, read
from dicomnode.network.tls import TlsFiles
from tests.helpers.certificates import Authority, fingerprint, self_signed

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("hospital"))


@pytest.fixture(scope="module")
def files(hospital: Authority) -> TlsFiles:
    return hospital.files("node")


def wrong(files: TlsFiles, now: datetime = NOW) -> str:
    return "\n".join(one.text for one in inspect(files, now) if not one.ok)


def test_nothing_is_wrong(hospital: Authority, files: TlsFiles) -> None:
    assert wrong(replace(files, crl_file=hospital.revocations())) == ""


@pytest.mark.parametrize(
    ("days", "words"),
    [
        (69, ""),
        (71, "expires on"),
        (101, "expired on"),
        (-1, "is valid from"),
    ],
)
def test_a_certificate_is_told_of_thirty_days_ahead(files: TlsFiles, days: int, words: str) -> None:
    told = wrong(files, NOW + timedelta(days=days))
    assert words in told if words else not told
    if "expires" in words:
        assert "CN=node" in told and str(files.certificate) in told and "in 2" in told


def test_so_is_a_ca(files: TlsFiles) -> None:
    assert "a trusted CA (CN=CA" in wrong(files, NOW + timedelta(days=980))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f, h, p: replace(f, certificate=p / "none"), "none: cannot be read"),
        (lambda f, h, p: replace(f, key=p / "none"), "none: cannot be read"),
        (lambda f, h, p: replace(f, ca_file=f.key), "holds no PEM certificate"),
        (lambda f, h, p: replace(f, key=h.issue("other").key), "the key is not the one of this certificate"),
        (lambda f, h, p: replace(f, crl_file=f.key), "holds no PEM revocation list"),
        (lambda f, h, p: replace(f, crl_file=h.revocations(days=-1)), "nobody is let in by TLS"),
    ],
)
def test_files_that_do_not_work(
    files: TlsFiles,
    hospital: Authority,
    tmp_path: Path,
    change: Callable[[TlsFiles, Authority, Path], TlsFiles],
    words: str,
) -> None:
    assert words in wrong(change(files, hospital, tmp_path))


def test_a_key_that_others_can_read(hospital: Authority) -> None:
    files = hospital.files("open")
    assert files.key.stat().st_mode & 0o777 == 0o600
    files.key.chmod(0o640)
    assert "can be read by others (mode 0640): chmod 600" in wrong(files)


def test_what_a_certificate_says(hospital: Authority, tmp_path: Path) -> None:
    made = hospital.issue("CT-1", hosts=("Ct1.example", "10.1.2.3"))
    (found,) = read(made.certificate)
    shown = {str(one) for one in found.identities}
    assert shown == {fingerprint(made.certificate), "CN:CT-1", "DNS:ct1.example", "IP:10.1.2.3"}
    assert (found.subject, found.is_ca, found.key) == ("CN=CT-1", False, "EC secp256r1")
    assert read(self_signed(tmp_path).certificate)[0].is_ca
    with pytest.raises(ConfigurationError, match="holds no PEM certificate"):
        read(made.key)
