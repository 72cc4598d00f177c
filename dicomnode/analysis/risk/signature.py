"""Whose bundle it is: an Ed25519 signature (RFC 8032) over model.toml, which holds the digests of all other files.

The signature is a file of its own in the bundle's folder, `model.sig` (JSON). Adding or removing it changes neither the
bundle's digest nor what the bundle says. A node that demands signatures (`analysis.require_signed_bundles`) verifies it
before it reads anything else of the bundle.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dicomnode.errors import BundleError, ConfigurationError

FILE = "model.sig"
#: What a key signs begins with this: it cannot be taken for a signature of something else.
_PURPOSE = b"dicomnode bundle signature 1\n"
_LONGEST, _SHOWN = 4096, 16


class Signature(BaseModel):
    """The content of `model.sig`.

    Attributes:
        key: fingerprint of the public key that verifies it.
        signature: 64 bytes, base64.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Literal[1] = 1
    algorithm: Literal["ed25519"] = "ed25519"
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    signature: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{86}==$")]


@dataclass(frozen=True)
class TrustedKey:
    """The public key of somebody whose bundles may serve here."""

    path: Path
    key: Ed25519PublicKey

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the key's 32 bytes, hexadecimal."""
        return fingerprint(self.key)


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 over the key's 32 bytes, hexadecimal: what people compare over the telephone."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()


def read_key(path: Path) -> TrustedKey:
    """Read a public key (PEM).

    Raises:
        ConfigurationError: the file cannot be read, or holds no Ed25519 public key.
    """
    key: object = None
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path}: the key cannot be read ({error.strerror}): correct the path") from None
    except (ValueError, UnsupportedAlgorithm):
        pass
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(
            f"{path} holds no Ed25519 public key in PEM: give the file that `training keygen` wrote as .pub"
        )
    return TrustedKey(path, key)


def signed_bytes(manifest: bytes) -> bytes:
    """Return what is signed, of the bytes of model.toml."""
    return _PURPOSE + manifest


def read(folder: Path) -> Signature | None:
    """Return a bundle's signature, not yet verified; None where there is none. Raises BundleError: not one of ours."""
    path = folder / FILE
    try:
        with path.open("rb") as file:
            text = file.read(_LONGEST + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None
    try:
        return Signature.model_validate_json(text)
    except ValidationError:
        raise BundleError(f"{path} is not a signature that `training sign` wrote: sign the bundle again") from None


def verify(folder: Path, manifest: bytes, trusted: Sequence[TrustedKey]) -> TrustedKey:
    """Return who has signed a bundle.

    Args:
        folder: the bundle's.
        manifest: the bytes of its model.toml.
        trusted: whose signature counts.

    Raises:
        BundleError: there is no signature, it is nobody's who is trusted, or it is of another model.toml.
    """
    known = {key.fingerprint: key for key in trusted}
    given = read(folder)
    if given is None:
        raise BundleError(
            f"{folder} is not signed ({FILE} is missing), and a signature is demanded "
            "(analysis.require_signed_bundles): let its maker sign it with `training sign`"
        )
    if given.key not in known:
        raise BundleError(
            f"{folder} is signed with the key {given.key[:_SHOWN]}…, which is not in analysis.trusted_keys "
            f"({', '.join(f'{one[:_SHOWN]}…' for one in known) or 'none'}): add its public key if you trust its owner"
        )
    try:
        known[given.key].key.verify(base64.b64decode(given.signature), signed_bytes(manifest))
    except InvalidSignature:
        raise BundleError(
            f"the signature in {folder} is not of this model.toml: the bundle was changed after it was signed. Copy it "
            "again from its source"
        ) from None
    return known[given.key]
