"""Rules tried on a folder: what would be done, without doing it."""

from pathlib import Path

from dicomnode.analysis.series.headers import find_files, read_headers
from dicomnode.analysis.series.selection import group, studies
from dicomnode.errors import UsageError
from dicomnode.routing.rules import RoutingDecision, RuleSet, decide
from dicomnode.routing.study_facts import keywords, of_headers


def decide_folder(source: Path, rules: RuleSet, calling: str, called: str) -> dict[str, RoutingDecision]:
    """Return the decision on each study of a folder (or of one file), by Study Instance UID.

    It is as if the folder had come on one association.

    Raises:
        UsageError: there is no DICOM file.
    """
    headers, _ = read_headers(find_files(source) if source.is_dir() else [source])
    if not headers:
        raise UsageError(f"{source}: no readable DICOM file")
    wanted = keywords(rules)
    found = studies(group(headers))
    return {
        uid: decide(of_headers(uid, [h for s in series for h in s.headers], [(calling, called)], wanted), rules)
        for uid, series in sorted(found.items())
    }
