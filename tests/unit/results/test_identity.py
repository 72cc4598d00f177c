"""What names the patient and the order goes back as it came, byte for byte, or not at all."""

import json
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pydicom
import pytest

from tests.fuzz import series
from tests.helpers.report_cases import quantities


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("keyword", "value"), [("AccessionNumber", "A" * 20), ("PatientID", "P1\\P2")])
def test_an_identity_that_breaks_its_vr_refuses_or_goes_back_verbatim(keyword: str, value: str, tmp_path: Path) -> None:
    change = {"keyword": keyword, "how": "replace", "which": "all", "value": value}
    paths = series.write(json.dumps({"form": "explicit", "changes": [change]}).encode(), tmp_path)
    verbatim = replace(series._METHOD, rules=replace(series._RULES, invalid_identity="verbatim"))
    numbers = dict.fromkeys(("lungs", "right", "left"), quantities())
    with (
        mock.patch.object(series.summary, "picture", lambda _views, _findings: np.zeros((8, 8, 3), np.uint8)),
        mock.patch.object(series.quantify, "by_region", lambda *_: numbers),
    ):
        findings, objects = series._go(paths, tmp_path, set())
        assert [r.code for one in findings.rejected for r in one.reasons] == ["identity-invalid"]
        assert objects == [], "no report names a patient whom no valid report can name"
        with mock.patch.object(series, "_METHOD", verbatim):
            findings, objects = series._go(paths, tmp_path, set())
    assert "identity-verbatim" in {flag.code for flag in findings.flags}
    assert len(objects) == 3
    for path in objects:
        assert pydicom.dcmread(path).get_item(keyword).value.rstrip(b" ") == value.encode()
