"""Tasks dealt to processes: outcomes, crashes, shards, what ends a run, and what it leaves."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from dstnet.core.progress import Step, progress, watching, working_on
from dstnet.errors import OutputError, SettingsError
from dstnet.io.leftovers import hidden_path, remove_leftovers
from dstnet.runs import (
    Done,
    Shard,
    SlurmSettings,
    WorkerCrash,
    Workplace,
    run_tasks,
)


@dataclass(frozen=True)
class Squares:
    """Squares numbers; 13 kills the worker, -1 cannot be done, nor anything after it."""

    def worker(self, device):
        if device == "meta:1":
            raise SettingsError("there is no network for meta:1")
        return lambda number: self.square(number, device)

    def square(self, number, device):
        if number == 13:
            os.kill(os.getpid(), signal.SIGSEGV)
        if number == -1:
            raise OutputError("the disk is full")
        return number * number, device


def test_outcomes_in_this_process_come_in_order():
    tasks = iter([2, None, 3, 4])
    assert list(run_tasks(tasks, Squares(), Workplace(threads=1))) == [
        Done(0, 2, (4, "cpu")),
        Done(1, 3, (9, "cpu")),
        Done(2, 4, (16, "cpu")),
    ]


def test_shards_take_each_task_once_and_keep_its_number():
    parts = [list(run_tasks(range(5), Squares(), Workplace(shard=Shard(i, 2)))) for i in (1, 2)]
    assert [[done.index for done in part] for part in parts] == [[0, 2, 4], [1, 3]]


@pytest.mark.parametrize("shard", [(0, 2), (3, 2), (1, 0)])
def test_impossible_shards(shard):
    with pytest.raises(SettingsError, match="i/n"):
        Shard(*shard)


def test_two_places_exclude_each_other(tmp_path):
    with pytest.raises(SettingsError, match="exclude each other"):
        Workplace(slurm=SlurmSettings(2), scheduler_file=tmp_path / "scheduler.json")


def test_what_cannot_start_is_refused_before_any_task_is_asked_for():
    def tasks():
        raise AssertionError("asked for")
        yield 1

    for workers in (None, 2):
        place = Workplace(workers=workers, devices=("cpu", "none"))
        with pytest.raises(SettingsError, match="device 'none' cannot be used"):
            run_tasks(tasks(), Squares(), place)


def test_nothing_is_done_after_an_error_of_the_job():
    asked = []

    def tasks():
        for number in (2, -1, 3):
            asked.append(number)
            yield number

    outcomes = run_tasks(tasks(), Squares())
    assert next(outcomes).value == (4, "cpu")
    with pytest.raises(OutputError, match="disk is full"):
        next(outcomes)
    assert asked == [2, -1]


@pytest.fixture
def any_device(monkeypatch):
    """Names of devices reach the workers, whatever this machine has."""
    monkeypatch.setattr("dstnet.runs.workplace.check_devices", lambda devices: None)


@pytest.mark.slow
def test_a_task_that_kills_its_workers_costs_itself_alone(any_device):
    workplace = Workplace(workers=2, threads=1, devices=("cpu", "meta"))
    outcomes = sorted(run_tasks([2, 13, 3, 4], Squares(), workplace), key=lambda o: o.index)
    crash = outcomes.pop(1)
    assert crash == WorkerCrash(1, 13, 2, "SIGSEGV")
    assert [done.value[0] for done in outcomes] == [4, 9, 16]
    assert {done.value[1] for done in outcomes} <= {"cpu", "meta"}


@dataclass(frozen=True)
class Counts:
    """Counts to a number, aloud; 13 kills the worker on the way."""

    def worker(self, device):
        return self.count

    def count(self, number):
        with working_on(f"count {number}"):
            progress("counting", 1, number)
            if number == 13:
                os.kill(os.getpid(), signal.SIGKILL)
            for done in range(number):
                progress("counting", done, number)
        return number


@pytest.mark.slow
def test_workers_say_how_far_they_are_but_not_too_often():
    steps = []
    with watching(steps.append):
        outcomes = list(run_tasks([5000, 13], Counts(), Workplace(workers=1, threads=1, tries=1)))
    assert outcomes[0] == Done(0, 5000, 5000) and isinstance(outcomes[1], WorkerCrash)
    assert steps[0] == Step("count 5000", "beginning") and len(steps) < 10
    ended = [step.subject for step in steps if step.doing is None]
    assert ended == ["count 5000", "count 13"], "also where the worker died"


@pytest.mark.slow
def test_an_error_of_the_job_in_a_worker_ends_the_run(any_device):
    with pytest.raises(OutputError, match="disk is full"):
        list(run_tasks([-1], Squares(), Workplace(workers=1, threads=1)))
    with pytest.raises(SettingsError, match="no network for meta:1"):
        list(run_tasks([1], Squares(), Workplace(workers=1, threads=1, devices=("meta:1",))))


def test_sigterm_ends_a_run_in_good_order(tmp_path):
    """What is half written goes, as after an error; the exit code is a shell's."""
    code = (
        "import pathlib, sys, time\nfrom dstnet.io import atomic_path\n"
        "from dstnet.runs import stop_signals\n"
        f"with stop_signals(), atomic_path({str(tmp_path / 'a.mrc')!r}) as path:\n"
        "    path.write_text('half')\n    print('writing', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"writing\n"
    assert len(list(tmp_path.iterdir())) == 1
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    process.stdout.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "is_here", "processes"),
    [
        ({}, True, 1),
        ({"workers": 3}, False, 3),
        ({"slurm": SlurmSettings(2)}, False, 2),
        ({"scheduler_file": Path("scheduler.json")}, False, 1),
    ],
)
def test_a_workplace_knows_where_it_is(changes, is_here, processes):
    workplace = Workplace(**changes)
    assert (workplace.is_here, workplace.processes) == (is_here, processes)


def test_leftovers_go_by_age_and_name(tmp_path):
    old, young, other = (tmp_path / name for name in ("a_dw.mrc", "b_dw.star", "c.mrc"))
    hidden = [hidden_path(old), hidden_path(young), tmp_path / ".mine.mrc"]
    for path in (*hidden, other):
        path.write_text("half")
    for path in (hidden[0], hidden[2]):
        os.utime(path, (time.time() - 7200,) * 2)
    remove_leftovers(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in (*hidden[1:], other)}
    remove_leftovers(tmp_path, stem="a", older_than_seconds=0)
    assert hidden[1].exists()
    remove_leftovers(tmp_path, stem="b", older_than_seconds=0)
    assert not hidden[1].exists() and hidden[2].exists()


def test_hidden_names_fit_where_the_name_does():
    path = Path("/x") / ("n" * 200 + ".mrc")
    assert hidden_path(path).parent == path.parent and len(hidden_path(path).name) < 60
