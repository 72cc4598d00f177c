"""Running other people's validators and readers."""

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

PIXELMED = Path("/usr/share/java/pixelmed.jar")
#: The fixture `peer`.
Peer = Callable[[str, str], str]


def said(command: Sequence[str | Path]) -> str:
    """What the program printed; a program that fails is a failed test."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(("Error", "E:", "F:", "ERROR"))]


def pixelmed_errors(path: Path, peer: Peer) -> list[str]:
    """The errors but one: CID 100 is extensible and lacks the CT of the chest; the validator knows no extension."""
    known = 'Code (24627-2,LN,"CT Chest") not found in context group 100'
    return [line for line in errors(pixelmed(path, peer)) if not line.endswith(known)]


def pixelmed(path: Path, peer: Peer) -> str:
    java = peer("java", "pixelmed-apps")
    if not PIXELMED.is_file():
        peer("the PixelMed library (pixelmed.jar)", "pixelmed-apps")
    # Java 17 limits XPath expressions to fewer operations than the validator's style sheets need.
    # Compiled at once and no further: it runs for seconds.
    quick = "-XX:TieredStopAtLevel=1"
    limits = [f"-Djdk.xml.xpath{name}Limit=0" for name in ("TotalOp", "ExprOp", "ExprGrp")]
    main = "com.pixelmed.validate.DicomSRValidator"
    text = said([java, quick, *limits, "-cp", PIXELMED, main, "-checkcontentitemorder", path])
    assert "Found Root Template TID_1500" in text
    assert "IOD validation complete" in text
    return text
