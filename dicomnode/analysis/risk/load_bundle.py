"""A bundle's folder, read with every digest checked, and its golden case reproduced."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from dicomnode.analysis.risk import fold_models, golden_case, reference, signature
from dicomnode.analysis.risk.bundle import Bundle
from dicomnode.analysis.risk.encoder import FOLDER, Encoder, EncoderSpec, load_encoder
from dicomnode.analysis.risk.manifest import FORMAT, EncoderFile, Manifest, first_error, seal_of
from dicomnode.analysis.risk.preprocess import Spec
from dicomnode.analysis.risk.signature import TrustedKey
from dicomnode.errors import BundleError, DicomnodeError
from dicomnode.files import parse_toml


def load(folder: Path, *, allow_demo: bool, trusted: Sequence[TrustedKey] | None = None) -> Bundle:
    """Read a bundle, check every digest, and let it reproduce its golden case.

    Args:
        folder: the bundle's.
        allow_demo: whether a demonstration may serve.
        trusted: whose signature it must bear; None: it needs none.

    Raises:
        BundleError: a file is missing or changed, model.toml does not fit, the golden case comes out differently, the
            signature is missing or nobody's who is trusted, or the bundle is a demonstration and `allow_demo` is False;
            whatever else goes wrong with it is one, too.
    """
    with _as_bundle_error(folder):
        bundle, contents = _read_files(folder, trusted)
        if bundle.intended_use == "synthetic-demo" and not allow_demo:
            raise BundleError(
                f"the bundle {bundle.name!r} in {folder} was trained on synthetic phantoms and is for demonstration "
                "only: its numbers are meaningless for a patient. Install a research bundle or, for a demonstration, "
                "set analysis.allow_demo_bundles = true in the configuration"
            )
        golden_case.check(bundle, contents)
        return bundle


def read(folder: Path) -> Bundle:
    """Read a bundle and check its digests, without the golden case: for the maker of bundles, who needs it for that.

    Raises:
        BundleError: as `load`, but for the golden case and the intended use.
    """
    with _as_bundle_error(folder):
        return _read_files(folder)[0]


@contextmanager
def _as_bundle_error(folder: Path) -> Iterator[None]:
    """Report any failure to read or run the files, which others made, as the bundle's error."""
    try:
        yield
    except (DicomnodeError, MemoryError):
        raise
    except Exception as error:
        raise BundleError(
            f"{folder} cannot be used as a bundle ({type(error).__name__}: {error}): copy it again from its "
            "source, or make it again"
        ) from error


def _read_files(folder: Path, trusted: Sequence[TrustedKey] | None = None) -> tuple[Bundle, dict[str, bytes]]:
    """Return the bundle, and the files that are no models, as they were when their digests were checked."""
    # A link may be moved to another bundle at any moment: all files have to be of one.
    folder = folder.resolve()
    text = _bytes(folder / "model.toml")
    if trusted is not None:
        signature.verify(folder, text, trusted)
    try:
        stored = parse_toml(text.decode("utf-8"))
        manifest = Manifest.model_validate(stored)
        spec = None if manifest.preprocessing is None else Spec.from_dict(manifest.preprocessing)
    except ValidationError as error:
        raise BundleError(f"{folder / 'model.toml'}: {_other_format(stored) or first_error(error)}") from None
    except ValueError as error:  # not TOML, not UTF-8, or the spec
        raise BundleError(f"{folder / 'model.toml'}: {error}") from None
    if manifest.seal != seal_of(stored):
        raise BundleError(
            f"{folder / 'model.toml'} was changed after it was written: its seal does not match its content. Copy the "
            "bundle again from its source, or make it again with `training bundle`"
        )
    if odd := sorted({path.name for path in folder.iterdir()} - {"model.toml", signature.FILE, *manifest.files}):
        raise BundleError(f"{folder} contains {', '.join(odd[:3])}, which model.toml does not list: remove it")
    models = {name for arm in manifest.arms for name in arm.models}
    contents = {}
    for name, expected in manifest.files.items():
        data = _bytes(folder / name)
        found = hashlib.sha256(data).hexdigest()
        if found != expected:
            raise BundleError(
                f"{folder / name} is not the file listed in model.toml: sha256 {found[:12]}…, expected "
                f"{expected[:12]}…. Copy the bundle again from its source"
            )
        if name not in models:
            contents[name] = data
    encoder = None if manifest.encoder is None else _encoder(folder, manifest.encoder, contents)
    sha256 = hashlib.sha256(text).hexdigest()
    known = reference.parse(contents[reference.NAME], folder / reference.NAME) if reference.NAME in contents else None
    return Bundle(folder, manifest, spec, fold_models.read(folder, manifest, sha256, encoder), sha256, known), contents


def _encoder(folder: Path, stated: EncoderFile, contents: dict[str, bytes]) -> Encoder:
    """Return the bundle's encoder: its own file, or the one in `encoders` beside it; its digest first, then its code.

    Raises:
        BundleError: the file is missing, another one, or no encoder.
    """
    spec = EncoderSpec.from_dict(stated.preprocessing)
    if stated.included:
        content = contents.pop(stated.file)
    else:
        path = folder.parent / FOLDER / stated.file
        if not path.is_file():
            raise BundleError(
                f"{folder} needs the encoder {stated.file}, which its licence ({stated.licence}) does not let it hold: "
                f"copy the file with sha256 {stated.sha256} to {path}"
            )
        content = _bytes(path)
    return load_encoder(content, stated.sha256, spec, stated.width, stated.file)


def _other_format(stored: Mapping[str, object]) -> str:
    """Say that a bundle is of another format than this version reads, and what to do; "" where it is of this one."""
    found = stored.get("format")
    if not isinstance(found, int) or isinstance(found, bool) or found == FORMAT:
        return ""
    cure = (
        "upgrade dicomnode"
        if found > FORMAT
        else "make it anew with `training bundle`, or use the dicomnode that made it"
    )
    return f"it has format {found}, and this version reads {FORMAT}: {cure}"


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BundleError(f"{path} is missing: the bundle is incomplete or the folder is wrong") from None
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None
