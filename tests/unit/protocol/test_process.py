"""A prepared process is put back as it was, also where the C library has no such setting or the run fails."""

import ctypes
import gc
import sys

import pytest

from protocol.process import prepared_process


@pytest.mark.parametrize("library", [ctypes.CDLL(None), object()])
def test_settings_hold_for_the_time_of_a_run(library: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    interval = sys.getswitchinterval()
    with pytest.raises(KeyError), prepared_process():
        assert sys.getswitchinterval() < interval and gc.get_freeze_count() > 1000
        raise KeyError
    assert sys.getswitchinterval() == interval and gc.get_freeze_count() == 0
