"""What every process of the node does first."""

from pathlib import Path

import pytest

from dicomnode import config
from dicomnode.errors import SpoolError
from dicomnode.service.processes import prepare_folders


def test_a_folder_that_cannot_be_made_is_named_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = config.parse({"storage": {"state": "file/state"}}, tmp_path / "ae_config.toml")
    with pytest.raises(
        SpoolError, match=r"storage\.state = .*/file/state: cannot create this folder \(Not a directory\)"
    ):
        prepare_folders(settings)
