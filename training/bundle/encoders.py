"""The encoder of a run in its bundle: the file itself where its licence lets it be passed on, else beside it."""

import shutil
from pathlib import Path

from dicomnode.analysis.risk.encoder import FOLDER, EncoderSpec, load_encoder
from dicomnode.errors import BundleError, UsageError
from dicomnode.files import sha256_of, write_whole
from training.bundle import golden
from training.models.encoder_settings import EncoderSettings

#: Of the arm.
NAME = "encoder"


def place(settings: EncoderSettings, folder: Path) -> dict[str, object]:
    """Put the file of an encoder into a bundle's folder, or into `encoders` beside it. Returns its table in model.toml.

    Raises:
        UsageError: the file is gone, or another one.
    """
    path = settings.path
    if path is None or not path.is_file():
        raise UsageError(f"encoder.path: {path} is not there any more: the bundle needs the file")
    content = path.read_bytes()
    name = f"encoder-{settings.sha256[:12]}.pt"
    spec = EncoderSpec.from_dict(settings.spec)
    try:
        encoder = load_encoder(content, settings.sha256, spec, None, name)
    except BundleError as error:
        raise UsageError(f"encoder.path: {path}: {error}") from None
    target = folder / name if settings.redistribute else folder.parent / FOLDER / name
    target.parent.mkdir(exist_ok=True)
    write_whole(target, content)
    return {
        "file": name,
        "sha256": settings.sha256,
        "licence": settings.licence,
        "included": settings.redistribute,
        "width": len(encoder.embed(*golden.phantom_scan())),
        "preprocessing": spec.to_dict(),
    }


def keep_beside(made: Path, out: Path) -> None:
    """Take what lies in `encoders` beside a bundle's folder to its final place: there, too, the bundle looks for it."""
    for path in (made.parent / FOLDER).glob("*.pt"):
        target = out.parent / FOLDER / path.name
        target.parent.mkdir(exist_ok=True)
        if not target.is_file() or sha256_of(target) != sha256_of(path):
            shutil.copyfile(path, target)
