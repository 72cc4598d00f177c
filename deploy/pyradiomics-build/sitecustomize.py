"""For the build of pyradiomics 3.0.1 alone (PYTHONPATH in deploy/environment.sh and deploy/offline.py).

Its setup.py reads setup.cfg by two names that Python 3.12 has removed. The package itself runs on 3.12 and 3.13.
"""

import configparser

if not hasattr(configparser, "SafeConfigParser"):

    class SafeConfigParser(configparser.ConfigParser):
        """The class under its old name, with its old method."""

        def readfp(self, file) -> None:  # type: ignore[no-untyped-def]
            """Read an open file."""
            self.read_file(file)

    configparser.SafeConfigParser = SafeConfigParser  # type: ignore[attr-defined]
