"""Tables written while a run goes on: soon, not too often, at once when nothing else is to do."""

import time

import pytest

from dstnet.errors import OutputError
from dstnet.pipeline import refreshing
from dstnet.pipeline.refreshing import Refresher


class Tables:
    """Counts how often it was written, which takes `seconds`."""

    def __init__(self, seconds=0.0):
        self.written = 0
        self.seconds = seconds

    def write(self):
        time.sleep(self.seconds)
        self.written += 1

    def come(self, number, within=5.0):
        end = time.monotonic() + within
        while self.written < number and time.monotonic() < end:
            time.sleep(0.005)
        return self.written


def test_what_is_finished_is_written_while_others_are_worked_on():
    tables = Tables()
    refresher = Refresher(tables.write)
    assert tables.come(1, within=0.05) == 0, "nothing to write yet"
    for number in (1, 2):
        refresher.finished()
        assert tables.come(number) == number
    refresher.end()


def test_writing_takes_a_small_share_of_the_time_unless_nothing_else_is_to_do(monkeypatch):
    monkeypatch.setattr(refreshing, "SHARE", 1e-4)
    tables = Tables(seconds=0.02)
    refresher = Refresher(tables.write)
    refresher.finished()
    assert tables.come(1) == 1
    refresher.finished()
    refresher.finished()
    assert tables.come(2, within=0.3) == 1, "not before some 200 s"
    refresher.idle()
    refresher.idle()
    assert tables.come(2) == 2
    assert tables.come(3, within=0.1) == 2, "nothing new to write"
    refresher.end()


def test_nothing_waits_longer_than_said(monkeypatch):
    monkeypatch.setattr(refreshing, "SHARE", 1e-4)
    monkeypatch.setattr(refreshing, "LONGEST_SECONDS", 0.1)
    tables = Tables(seconds=0.02)
    refresher = Refresher(tables.write)
    for number in (1, 2, 3):
        refresher.finished()
        assert tables.come(number) == number
    refresher.end()


def test_tables_that_cannot_be_written_end_the_run():
    def write():
        raise OutputError("the disk is full")

    refresher = Refresher(write)
    refresher.finished()
    refresher._thread.join(5)
    with pytest.raises(OutputError, match="disk is full"):
        refresher.finished()
    refresher.end()
