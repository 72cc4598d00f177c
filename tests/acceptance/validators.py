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


class PixelMed:
    """PixelMed's validator of structured reports: one process, in which its style sheets are read once.

    Its own program takes seconds to start for each file. `SrValidator.java` calls it with `-checkcontentitemorder`.
    """

    def __init__(self, java: str) -> None:
        # Java 17 limits XPath expressions to fewer operations than the validator's style sheets need.
        limits = [f"-Djdk.xml.xpath{name}Limit=0" for name in ("TotalOp", "ExprOp", "ExprGrp")]
        # Compiled at once and no further: it runs for seconds.
        quick = "-XX:TieredStopAtLevel=1"
        command = [java, quick, *limits, "-cp", PIXELMED, Path(__file__).with_name("SrValidator.java")]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def __call__(self, path: Path) -> str:
        """Return what it says of a report."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(path, file=self._process.stdin, flush=True)
        text = ""
        while (line := self._process.stdout.readline()) != ".\n":
            assert line, f"it has ended: {text}"
            text += line
        assert "Found Root Template TID_1500" in text, text
        assert "IOD validation complete" in text, text
        return text

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def without_the_known(text: str) -> list[str]:
    """The errors but one: CID 100 is extensible and lacks the CT of the chest; the validator knows no extension."""
    known = 'Code (24627-2,LN,"CT Chest") not found in context group 100'
    return [line for line in errors(text) if not line.endswith(known)]
