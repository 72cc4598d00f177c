"""Where the results of one generation of a study lie, and what the files there are called.

```
findings.json   what the analysis found; stays when the rest is removed
*.dcm           the reports, each under its object's name
overlay.png     the summary's picture
order.json      the order that was linked, or that none was
priors.json     doubts about prior scans
reception.json  doubts about how the images came
attempt.json    stands while the study is analysed
labels.npz, views.npz, sources.json    the checkpoint between analysis and encoding; stays while the images do
inputs.json    the study's objects as they were analysed: SHA-256 by SOP Instance UID
DESTINATION.rejection    the note that takes a destination's older results back
```
"""

from pathlib import Path
from typing import Final

from dicomnode.files import inside, name_of

FINDINGS: Final = "findings.json"
ATTEMPT: Final = "attempt.json"
OVERLAY: Final = "overlay.png"
ORDER: Final = "order.json"
PRIORS: Final = "priors.json"
RECEPTION: Final = "reception.json"
LABELS: Final = "labels.npz"
VIEWS: Final = "views.npz"
SOURCES: Final = "sources.json"
INPUTS: Final = "inputs.json"


def results_folder(results: Path, study_uid: str, generation: int) -> Path:
    """Return the folder of one generation under `results` (`storage.results`).

    Raises:
        OutsideRootError: a link leads out of `results`.
    """
    return inside(results, name_of(study_uid), f"g{int(generation)}")


def report_file(folder: Path, name: str) -> Path:
    """Return the file of a report; `name` is an object's name of the configuration, or "refusal"."""
    return folder / f"{name}.dcm"


def rejection_file(folder: Path, destination: str) -> Path:
    """Return the file of a destination's rejection note: it is no report, and queries do not find it."""
    return folder / f"{destination}.rejection"


def report_files(folder: Path) -> list[Path]:
    """Return the reports that lie in a generation's folder, sorted by name; none where there is no such folder."""
    return sorted(folder.glob("*.dcm"))
