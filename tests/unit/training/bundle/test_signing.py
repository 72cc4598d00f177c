"""Bundles that are signed, and a node that demands it: what it takes, what it refuses and in which words."""

import json
import shutil
import stat
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicomnode import config
from dicomnode.analysis.risk import load_bundle, signature
from dicomnode.cli import app as node
from dicomnode.errors import BundleError, ConfigurationError, UsageError
from dicomnode.models import build
from tests.conftest import ROOT
from tests.helpers import bundles
from training.bundle import signing
from training.cli.commands import app as training

DEMO = ROOT / "weights" / "demo-synthetic"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two private keys, `ours` and `theirs`, with their public ones."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "theirs"):
        signing.make_key(folder / name)
    return folder


@pytest.fixture(scope="module")
def stored(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder with a bundle signed by us."""
    weights = tmp_path_factory.mktemp("weights")
    shutil.copytree(DEMO, weights / "signed")
    signing.sign(weights / "signed", keys / "ours")
    return weights


@pytest.fixture
def signed(stored: Path, tmp_path: Path) -> Path:
    shutil.copytree(stored, tmp_path / "weights", copy_function=_link)
    return tmp_path / "weights" / "signed"


def _link(source: str, target: str) -> None:
    """22 MB of a network need not be copied for a test that changes a text."""
    if source.endswith(".safetensors"):
        Path(target).hardlink_to(source)
    else:
        shutil.copy2(source, target)


def demanding(bundle: Path, keys: Path, *names: str) -> config.AnalysisTable:
    listed = json.dumps([str(keys / f"{name}.pub") for name in names])
    path = bundle.parent.parent / "ae_config.toml"
    path.write_text(
        f'[analysis]\nbundle = "{bundle.name}"\nallow_demo_bundles = true\nrequire_signed_bundles = true\n'
        f"trusted_keys = {listed}\n"
    )
    return config.load(path).analysis


def test_a_signed_bundle_serves_and_is_the_same_bundle(signed: Path, keys: Path) -> None:
    found = build.model_bundle(demanding(signed, keys, "theirs", "ours"))
    assert found is not None
    assert found.sha256 == load_bundle.read(DEMO).sha256
    manifest = (signed / "model.toml").read_bytes()
    assert signature.verify(signed, manifest, [signature.read_key(keys / "ours.pub")]).path == keys / "ours.pub"


def test_an_unsigned_bundle_is_refused_only_where_signatures_are_demanded(signed: Path, keys: Path) -> None:
    (signed / signature.FILE).unlink()
    with pytest.raises(BundleError, match=r"is not signed \(model\.sig is missing\).*training sign"):
        build.model_bundle(demanding(signed, keys, "ours"))
    assert load_bundle.read(signed).name


def test_a_stranger_s_signature_is_refused(signed: Path, keys: Path) -> None:
    with pytest.raises(BundleError, match=r"which is not in analysis\.trusted_keys"):
        build.model_bundle(demanding(signed, keys, "theirs"))


def test_a_stranger_cannot_sign_in_our_name(signed: Path, keys: Path) -> None:
    path = signed / signature.FILE
    ours = json.loads(path.read_text())
    signing.sign(signed, keys / "theirs")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"key": ours["key"]}))
    with pytest.raises(BundleError, match=r"is not of this model\.toml"):
        build.model_bundle(demanding(signed, keys, "ours"))


def test_what_a_forger_seals_again_is_refused(signed: Path, keys: Path) -> None:
    bundles.change(signed, r"^version = .*$", 'version = "forged"')
    assert load_bundle.read(signed).version == "forged"  # nothing but the signature tells
    with pytest.raises(BundleError, match="changed after it was signed"):
        build.model_bundle(demanding(signed, keys, "ours"))


@pytest.mark.parametrize("name", sorted(tomllib.loads((DEMO / "model.toml").read_text(encoding="utf-8"))["files"]))
def test_the_signature_covers_every_file(signed: Path, keys: Path, name: str) -> None:
    path = signed / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # the copy may be a link
    path.write_bytes(content)
    with pytest.raises(BundleError, match="is not the file listed"):
        build.model_bundle(demanding(signed, keys, "ours"))


@pytest.mark.parametrize(
    "text", ["", "{}", "\0" * 9000, '{"format":1,"algorithm":"none","key":"","signature":""}', "[" * 4000]
)
def test_a_signature_that_is_none(signed: Path, keys: Path, text: str) -> None:
    (signed / signature.FILE).write_text(text)
    with pytest.raises(BundleError, match="is not a signature that `training sign` wrote"):
        build.model_bundle(demanding(signed, keys, "ours"))


def test_demanding_signatures_without_keys_is_a_mistake(signed: Path, keys: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"analysis\.trusted_keys.*needs the public keys"):
        demanding(signed, keys)


@pytest.mark.parametrize("text", ["", "nonsense", "ours"], ids=["empty", "nonsense", "the private key"])
def test_a_trusted_key_that_is_none(signed: Path, keys: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.pub"
    path.write_text((keys / "ours").read_text() if text == "ours" else text)
    with pytest.raises(ConfigurationError, match=r"holds no Ed25519 public key"):
        build.model_bundle(demanding(signed, tmp_path, "odd"))


def test_the_private_key_is_its_owner_s_and_never_replaced(tmp_path: Path) -> None:
    signing.make_key(tmp_path / "k")
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
    before = (tmp_path / "k").read_bytes()
    (tmp_path / "k.pub").unlink()
    with pytest.raises(UsageError, match="never replaced"):
        signing.make_key(tmp_path / "k")
    assert (tmp_path / "k").read_bytes() == before


def test_by_the_command_line_with_a_passphrase(tmp_path: Path, signed: Path) -> None:
    run = CliRunner()
    made = run.invoke(training, ["keygen", str(tmp_path / "k"), "--passphrase"], input="word\nword\n")
    assert made.exit_code == 0, made.output
    assert b"ENCRYPTED" in (tmp_path / "k").read_bytes()
    sign = ["sign", str(signed), "--key", str(tmp_path / "k")]
    assert isinstance(run.invoke(training, sign, input="wrong\n").exception, UsageError)
    done = run.invoke(training, sign, input="word\n")
    assert done.exit_code == 0, done.output
    told = made.output.split()[-1]
    assert done.output.split()[-1] == told == signature.read_key(tmp_path / "k.pub").fingerprint
    (signed.parent.parent / "ae_config.toml").write_text("")
    verify = ["weights", "verify", "--config", str(signed.parent.parent / "ae_config.toml")]
    assert "not checked" in run.invoke(node, verify).output
    good = run.invoke(node, [*verify, "--key", str(tmp_path / "k.pub")])
    assert good.exit_code == 0, good.output
    assert "signed with the trusted key" in " ".join(good.output.split())
    signing.make_key(tmp_path / "other")
    assert run.invoke(node, [*verify, "--key", str(tmp_path / "other.pub")]).exit_code == 4


def test_what_does_not_load_is_not_signed(signed: Path, keys: Path) -> None:
    (signed / "golden.json").unlink()
    with pytest.raises(BundleError, match=r"golden\.json is missing"):
        signing.sign(signed, keys / "ours")
