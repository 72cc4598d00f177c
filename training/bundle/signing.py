"""Keys and signatures of bundles' makers, Ed25519 (RFC 8032). What a node verifies: `analysis.risk.signature`."""

import base64
import os
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from dicomnode.analysis.risk import load_bundle, signature
from dicomnode.analysis.risk.signature import Signature
from dicomnode.errors import UsageError
from dicomnode.files import write_whole

PUBLIC_SUFFIX = ".pub"


def make_key(path: Path, passphrase: str = "") -> str:
    """Make a key pair: the private key at `path`, for its owner alone (0600), the public one beside it as `.pub`.

    Returns:
        The public key's fingerprint.

    Raises:
        UsageError: one of the two files is there already.
    """
    public_path = path.with_name(path.name + PUBLIC_SUFFIX)
    for there in (path, public_path):
        if there.exists():
            raise UsageError(f"{there} exists: a key is never replaced; give another name")
    key = Ed25519PrivateKey.generate()
    how: KeySerializationEncryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)

    def write(file: BinaryIO) -> None:
        os.fchmod(file.fileno(), 0o600)
        file.write(private)

    write_whole(path, write)
    write_whole(public_path, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    public_path.chmod(0o644)
    return signature.fingerprint(key.public_key())


def needs_passphrase(path: Path) -> bool:
    """Whether a private key is encrypted. Raises UsageError: it cannot be read."""
    return b"ENCRYPTED" in _bytes(path)


def sign(bundle: Path, key_path: Path, passphrase: str = "") -> str:
    """Sign a bundle whose digests are right; an older signature is replaced.

    Args:
        bundle: its folder.
        key_path: the private key.
        passphrase: of the key, where it has one.

    Returns:
        The fingerprint of the key.

    Raises:
        BundleError: it is no whole bundle: nobody puts a name to what does not load.
        UsageError: the file holds no private key, or the passphrase is wrong.
    """
    key = _private(key_path, passphrase)
    load_bundle.load(bundle, allow_demo=True)
    manifest = (bundle / "model.toml").read_bytes()
    made = Signature(
        key=signature.fingerprint(key.public_key()),
        signature=base64.b64encode(key.sign(signature.signed_bytes(manifest))).decode(),
    )
    write_whole(bundle / signature.FILE, made.model_dump_json(indent=1) + "\n")
    (bundle / signature.FILE).chmod(0o644)  # as the bundle's other files: the node may run as another user
    return made.key


def _private(path: Path, passphrase: str) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(_bytes(path), passphrase.encode() if passphrase else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        what = (
            "the passphrase is wrong, or it is no private key" if passphrase else "it is no private key, or encrypted"
        )
        raise UsageError(f"{path} cannot be used: {what}; `training keygen` makes one") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path} is not an Ed25519 key: make one with `training keygen`")
    return key


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: the key cannot be read ({error.strerror})") from None
