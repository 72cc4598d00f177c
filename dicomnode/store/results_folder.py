"""Where the results of one generation of a study lie."""

from pathlib import Path


def results_folder(results: Path, study_uid: str, generation: int) -> Path:
    """Return the folder of one generation under `results` (`storage.results`)."""
    return results / study_uid / f"g{generation}"
