"""What the objects of all requests take together has an end, and is given back."""

import gc
import threading
from pathlib import Path

import numpy as np
import pytest

from dicomnode.dicomweb import files, retrieve
from dicomnode.dicomweb.memory import SharedMemory
from dicomnode.dicomweb.problems import WebError
from dicomnode.reception.holdings import Held
from tests.helpers.ct_files import ct_series, write


def test_who_would_take_more_waits_and_is_then_refused() -> None:
    memory = SharedMemory(most=10, wait_s=0.05)
    memory.take(8)
    with pytest.raises(WebError) as refused:
        memory.take(3)
    assert refused.value.status == 503 and memory.taken == 8
    waiting = SharedMemory(most=10, wait_s=60)
    waiting.take(8)
    came = threading.Thread(target=waiting.take, args=(5,))
    came.start()
    waiting.give(8)
    came.join(60)
    assert not came.is_alive() and waiting.taken == 5


def test_an_object_gives_back_what_it_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = write(ct_series(np.zeros((1, 4, 6), np.int16)), tmp_path)
    size = path.stat().st_size
    held = Held("1.2", "1.3", "1.4", "1.5", "CT", path)
    monkeypatch.setattr(files, "MEMORY", SharedMemory(most=2 * size - 1, wait_s=0.01))
    dataset = files.whole(held)
    assert files.MEMORY.taken == size and files.pixels(dataset, 1) == dataset.PixelData
    with pytest.raises(WebError) as refused:
        files.whole(held)
    assert refused.value.status == 503
    del dataset, refused
    gc.collect()
    assert files.MEMORY.taken == 0


@pytest.mark.parametrize("length", [0, 140, 200, 400, 700])
def test_a_damaged_file_is_406_and_keeps_nothing(length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = write(ct_series(np.zeros((1, 4, 6), np.int16)), tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    held = Held("1.2", "1.3", "1.4", "1.5", "CT", path)
    monkeypatch.setattr(files, "MEMORY", SharedMemory())
    for way in (lambda: retrieve.frames(held, [1], []), lambda: retrieve.bulk_data(held, "7FE00010", [])):
        with pytest.raises(WebError) as refused:
            way()
        assert refused.value.status in (404, 406)
    del refused
    gc.collect()
    assert files.MEMORY.taken == 0
