"""The collector waits while a report is made, and is afterwards as it was."""

import gc

import pytest

from dicomnode.report import gc_pause


@pytest.mark.parametrize("was_on", [True, False])
def test_put_off(was_on: bool) -> None:
    before = gc.isenabled()
    (gc.enable if was_on else gc.disable)()
    try:
        with pytest.raises(ValueError, match="within"), gc_pause.put_off():
            assert not gc.isenabled()
            raise ValueError("within")
        assert gc.isenabled() == was_on
    finally:
        (gc.enable if before else gc.disable)()
