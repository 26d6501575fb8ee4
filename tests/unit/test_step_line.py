"""How far long movies are: said now and then, and nothing of short ones."""

import pytest

from dstnet.cli import options
from dstnet.cli.options import StepLine, reporting
from dstnet.core.progress import Step, progress, working_on


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

    monkeypatch.setattr(options.time, "monotonic", lambda: Clock.now)
    return Clock


def test_long_work_is_said_every_so_often(clock):
    lines = []
    say = StepLine(lines.append, 30.0)
    for second in range(100):
        clock.now = 1000.0 + second
        say(Step("a.tif", "summing, frame", second, 100))
    say(Step("a.tif", None))
    assert lines == [f"a.tif: summing, frame {n} of 100, {n} s so far" for n in (30, 60, 90)] + [""]


def test_short_work_is_not_said_however_much_of_it(clock):
    lines = []
    say = StepLine(lines.append, 30.0)
    for second in range(100):
        clock.now += 1
        say(Step(f"{second // 10}.tif", "enhancing, tile", second % 10, 10))
        if second % 10 == 9:
            say(Step(f"{second // 10}.tif", None))
    assert not any(lines)


def test_of_several_the_oldest_is_said(clock):
    lines = []
    say = StepLine(lines.append, 30.0)
    say(Step("a.tif", "beginning"))
    clock.now += 20
    for name in ("b.tif", "c.tif"):
        say(Step(name, "summing, frame", 1, 8))
    clock.now += 15
    say(Step("c.tif", "summing, frame", 2, 8))
    say(Step("a.tif", None))
    clock.now += 30
    say(Step("c.tif", "summing, frame", 3, 8))
    assert lines == [
        "a.tif: beginning, 35 s so far; 2 more at work",
        "b.tif: summing, frame 1 of 8, 45 s so far; 1 more at work",
    ]


@pytest.mark.parametrize("as_json", [True, False])
def test_a_log_gets_lines_and_json_none(clock, capsys, as_json):
    with reporting(1, "aligning", as_json) as report, working_on("in/a.tif"):
        clock.now += 31
        progress("summing, frame", 3, 8)
        report("done", {"a": 1})
    said = capsys.readouterr()
    assert said.out == ('{"a": 1}\n' if as_json else "done\n"), "results alone"
    assert said.err == ("" if as_json else "a.tif: summing, frame 3 of 8, 31 s so far\n")
