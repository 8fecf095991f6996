"""A prepared process hands its lock over sooner, and collects again after a run, however that ended."""

import ctypes
import gc
import sys
from collections.abc import Iterator

import pytest

from protocol.process import prepared_process


@pytest.fixture(autouse=True)
def usual_interval() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("library", [ctypes.CDLL(None), object()])
def test_settings_hold_for_the_time_of_a_run(library: object, monkeypatch: pytest.MonkeyPatch) -> None:
    # The second C library has no `mallopt`.
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    with pytest.raises(KeyError), prepared_process():
        assert sys.getswitchinterval() < 0.001 and gc.get_freeze_count() > 1000
        raise KeyError
    assert gc.get_freeze_count() == 0
