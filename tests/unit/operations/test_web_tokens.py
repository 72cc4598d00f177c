"""Programs that are let into DICOMweb: what of it the audit trail notes."""

from contextlib import closing
from pathlib import Path

import pytest

from dicomnode import config
from dicomnode.errors import UsageError
from dicomnode.operations import web_tokens
from dicomnode.operations.jobs import open_catalog


def test_what_is_refused_is_not_noted_as_done(tmp_path: Path) -> None:
    (tmp_path / "ae_config.toml").write_text('[audit]\nto = "file"\n')
    loaded = config.load(tmp_path / "ae_config.toml")
    web_tokens.add(loaded, "viewer", "reader", "", 1.0)
    with closing(open_catalog(loaded)) as catalog:
        noted = catalog.audit_backlog()[0]
        assert noted == 1
        with pytest.raises(UsageError, match="already"):
            web_tokens.add(loaded, "viewer", "reader", "", 2.0)
        with pytest.raises(UsageError, match="no token"):
            web_tokens.remove(loaded, "other")
        assert catalog.audit_backlog()[0] == noted
        web_tokens.remove(loaded, "viewer")
        assert catalog.audit_backlog()[0] == noted + 1
    assert web_tokens.tokens(loaded) == []
