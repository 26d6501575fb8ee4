"""How many processors may be used: whatever limits them, the fewest count."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dstnet.runs import SlurmSettings, Workplace, processors
from dstnet.runs.processors import VARIABLES, find_processors
from dstnet.training.data import loader_processes


@pytest.fixture(autouse=True)
def ask_anew(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    processors.cache_clear()
    yield
    processors.cache_clear()


@pytest.fixture
def machine(monkeypatch):
    """A machine of 128 processors, of which the affinity leaves 64."""
    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


def proc(tmp_path: Path, cgroup: str, mounts: str) -> Path:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text(cgroup)
    (tmp_path / "proc" / "self" / "mountinfo").write_text(
        "22 1 0:21 / /proc rw - proc proc rw\nnot a mount\n" + mounts.format(tmp_path)
    )
    return tmp_path / "proc"


@pytest.mark.parametrize(
    ("environment", "count", "why"),
    [
        ({}, 64, "CPU affinity; this machine has 128"),
        ({"SLURM_CPUS_PER_TASK": "4"}, 4, "SLURM_CPUS_PER_TASK=4; this machine has 128"),
        ({"OMP_NUM_THREADS": "4,2"}, 4, "OMP_NUM_THREADS=4,2; this machine has 128"),
        ({"OMP_NUM_THREADS": "8", "SLURM_CPUS_PER_TASK": "16"}, 8, "OMP_NUM_THREADS=8"),
        ({"OMP_NUM_THREADS": "256"}, 64, "CPU affinity"),
        *[
            ({"OMP_NUM_THREADS": text}, 64, f"128; OMP_NUM_THREADS={text!r} is no positive number")
            for text in ("", "abc", "0", "-2", "2.5", "²")
        ],
    ],
)
def test_affinity_and_variables(machine, tmp_path, environment, count, why):
    found = find_processors(environment, tmp_path)
    assert found.count == count and why in found.why


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({"jobs/cpu.max": "400000 100000"}, 4),
        ({"jobs/cpu.max": "max 100000"}, 64),
        ({"jobs/cpu.max": "150000 100000"}, 2),  # rounded up
        ({"jobs/cpu.max": "10000 100000"}, 1),
        ({"jobs/cpu.max": "max 100000", "cpu.max": "300000 100000"}, 3),  # of what it lies in
        ({"jobs/step/cpu.max": "200000 100000", "jobs/cpu.max": "800000 100000"}, 2),
        ({"jobs/cpu.max": "nonsense"}, 64),
        ({"other/cpu.max": "100000 100000"}, 64),
    ],
)
def test_quotas_of_version_2(machine, tmp_path, files, count):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    mounts = "30 22 0:26 / {} rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
    found = find_processors({}, proc(tmp_path, "0::/jobs/step\n", mounts))
    assert found.count == count


@pytest.mark.parametrize(
    ("quota", "path", "root", "count"),
    [
        ("250000", "/docker/a", "/", 3),
        ("250000", "/docker/a", "/docker/a", 3),  # a container that sees its own group as the root
        ("250000", "/../../b", "/", 3),
        ("-1", "/docker/a", "/", 64),
    ],
)
def test_quotas_of_version_1(machine, tmp_path, quota, path, root, count):
    folder = tmp_path / "docker" / "a" if root == "/" and path == "/docker/a" else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    mounts = f"33 31 0:30 {root} {{}} rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    groups = f"9:name=systemd:/else\n4:cpu,cpuacct:{path}\n0::/\n"
    assert find_processors({}, proc(tmp_path, groups, mounts)).count == count


def test_without_the_kernels_files_there_is_no_quota(machine, tmp_path):
    assert find_processors({}, tmp_path / "nothing").count == 64


def test_workers_share_the_processors(machine, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    threads = {n: Workplace(workers=n).threads_of_each for n in (None, 1, 4, 6, 8)}
    assert threads == {None: 6, 1: 6, 4: 1, 6: 1, 8: 1}
    assert Workplace(workers=2, threads=9).threads_of_each == 9, "what is asked for is had"
    assert Workplace(workers=2).threads_in_words == (
        "threads: 3 in each of 2 processes (processors to be used: 6, OMP_NUM_THREADS=6; this"
        " machine has 128)"
    )
    assert Workplace(threads=9).threads_in_words is None
    # A submitting machine's processors are not those of a job.
    assert Workplace(slurm=SlurmSettings(8, cores=3)).threads_of_each == 3
    assert Workplace(scheduler_file=Path("scheduler.json")).threads_of_each is None


def test_crops_are_made_beside_the_training_where_there_is_a_processor_for_it(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert loader_processes(None, "cpu") == 0 and loader_processes(3, "cpu") == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    processors.cache_clear()
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert loader_processes(None, "cpu") == 1 and loader_processes(None, "cuda") == 0


@pytest.mark.slow
def test_the_command_limits_the_threads_of_all_libraries():
    code = (
        "import sys\nfrom dstnet.cli import main\nfrom dstnet.runs import limit_libraries\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\nlimit_libraries()\n"
        "import os, torch\n"
        "print(torch.get_num_threads(), os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1,4"}
    environment.pop("OMP_WAIT_POLICY", None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.stdout.decode() == "1 passive\n", done.stderr.decode()
