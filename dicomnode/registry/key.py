"""Where the node keeps the key of its pseudonyms (`registry_format.pseudonyms`). It never leaves the node."""

from pathlib import Path

from dicomnode.registry_format import pseudonyms
from dicomnode.registry_format.pseudonyms import Pseudonyms

KEY_FILE = "pseudonyms.key"


def load_pseudonyms(folder: Path) -> Pseudonyms:
    """Read the key in `registry.folder`; it is made there at first use.

    Raises:
        UsageError: the file is no key, or cannot be read or made.
    """
    lost = (
        "remove it, and a new key is made: patients who are in the registry then get other pseudonyms, so remove their "
        "old ones with `dicomnode registry forget PSEUDONYM --pseudonym`"
    )
    return pseudonyms.load(folder / KEY_FILE, lost)
