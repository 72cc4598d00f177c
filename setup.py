"""What the wheel carries beside the packages; everything else stands in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

#: Kept at the top of the repository, where people look for them; in the wheel they lie in dicomnode/shipped/, where
#: `dicomnode.files.shipped` finds them.
SHIPPED = ("weights/demo-synthetic", "ae_config.toml", "docs/research/training-run.toml")


class BuildWithShipped(build_py):
    """Copies them into a built package; an editable install finds them in the repository."""

    def run(self) -> None:
        """Build, then copy what is shipped."""
        super().run()
        if self.editable_mode:
            return
        for name in SHIPPED:
            target = Path(self.build_lib, "dicomnode", "shipped", name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if Path(name).is_dir():
                shutil.copytree(name, target, dirs_exist_ok=True)
            else:
                shutil.copyfile(name, target)


setup(cmdclass={"build_py": BuildWithShipped})
