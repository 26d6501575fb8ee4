"""A bad folder on a bad day: many small movies with all kinds of bad things among them, two
workers, and kills at random moments, each followed by the same command again.

    python benchmarks/quality/soak.py [--movies N] [--kills N] [--seed N]

Asks for: the results of every good movie, byte for byte those of an undisturbed run of the good
ones alone; one line that names it for each bad one; tables that list just the good ones; what
others put there as it was; nothing half-written, and nothing outside the output folder; memory that
does not grow. The same of a smaller folder that fills while it is watched. Ends with 1 where one of
that is not so.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any

import starfile
from soak_inputs import FOREIGN, KINDS, Inputs, make_inputs

from dstnet.errors import printable
from dstnet.io.star import star_holds
from dstnet.pipeline.journal import read_values
from dstnet.pipeline.naming import result_name
from dstnet.pipeline.records import read_records

ROOT = Path(__file__).resolve().parents[2]
OUT, UNDISTURBED = Path("out"), Path("undisturbed")
WATCHED_MOVIES = 120
WATCH = ("--watch", "0.5", "--watch-settle", "1", "--watch-idle", "4")
AN_HOUR = 3600.0
LEAVE_SECONDS = 30.0
MOST_GROWTH_MB = 30  # by 1,000 movies: their records take 10

# Who is killed, and how.
WORKER, RUN, ASKED, CTRL_C = "a worker", "the run", "the run, by SIGTERM", "all, by Ctrl-C"
VICTIMS = (WORKER, RUN, ASKED, CTRL_C)


class Run:
    """The command in processes of its own, in this folder."""

    def __init__(self, out: Path, arguments: list[str], *options: str) -> None:
        # Jobs in the background of a shell are deaf to Ctrl-C.
        heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
        program = f"{heard}; from dstnet.cli import main; main()"
        settled = ["-o", str(out), "-d", "cpu", "--threads", "1", *options]
        self.said = Path(tempfile.mkstemp(dir="said")[1])
        with open(self.said, "wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program, "align", *arguments, *settled],
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT / "src"),
                    "TMPDIR": os.path.abspath("tmp"),
                },
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def wait(self) -> int:
        """Until it has ended; its exit code."""
        return self._process.wait()

    def kill(self, victim: str) -> None:
        """Kill a part of it."""
        process = self._process.pid
        if victim == WORKER:
            workers = [p for p in self.processes() if p != process]
            with suppress(ProcessLookupError):
                if workers:
                    os.kill(workers[-1], signal.SIGKILL)
        elif victim == CTRL_C:
            os.killpg(process, signal.SIGINT)
        else:
            os.kill(process, signal.SIGKILL if victim == RUN else signal.SIGTERM)

    def processes(self) -> list[int]:
        """Those that are still there, but for multiprocessing's own."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                is_ours = int(fields[3]) == self._process.pid and fields[0] != "Z"
                if is_ours and b"resource_tracker" not in (stat.parent / "cmdline").read_bytes():
                    found.append(int(stat.parent.name))
        return sorted(found)


def run_and_kill(arguments: list[str], good: int, kills: int, chance: random.Random) -> list[Run]:
    """Runs of two workers, each begun when the one before was killed; the last is not."""
    runs = []
    for number in range(kills):
        if not runs or runs[-1].has_ended:
            runs.append(Run(OUT, arguments, "--workers", "2"))
        wanted = good * (number + chance.random()) / (kills + 0.5)
        while made(OUT) < wanted and not runs[-1].has_ended:
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.1))
        victim = VICTIMS[number % len(VICTIMS)]
        runs[-1].kill(victim)
        if victim != WORKER:
            runs[-1].wait()
    for run in runs:
        while run.processes():  # workers whose run was killed finish what they are at
            if run is runs[-1] and not run.has_ended:
                run.kill(RUN)
            time.sleep(0.1)
    age_hidden()
    runs.append(Run(OUT, arguments, "--workers", "2"))
    runs[-1].wait()
    return runs


def made(out: Path) -> int:
    """How many sums lie there."""
    return sum(not path.name.startswith(".") for path in out.glob("micrographs/**/*_aligned.mrc"))


def age_hidden() -> None:
    """Let an hour pass for what killed runs have left: younger files may be another run's."""
    then = time.time() - AN_HOUR
    for path in OUT.rglob(".*"):
        os.utime(path, (then, then))


def arrive(inputs: Inputs, chance: random.Random) -> None:
    """Let the files of ``all`` come into ``in`` in any order, every third in two halves."""
    files = sorted(Path("all").rglob("*"))
    chance.shuffle(files)
    halves = []
    for number, path in enumerate(files):
        target = Path("in", path.relative_to("all"))
        target.parent.mkdir(exist_ok=True)
        if number % 3 == 0 and path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            target.write_bytes(content[: len(content) // 2])
            halves.append((target, content))
        elif not path.is_dir() or not any(path.iterdir()):
            path.rename(target)
        if number % 40 == 0 or number == len(files) - 1:
            time.sleep(1.5)
            for target, content in halves:
                target.write_bytes(content)
            halves.clear()


def results(out: Path, left_out: list[Path]) -> dict[str, bytes]:
    """Images, motion and table, by name; paths in them made independent of the folder."""
    files = [*out.glob("micrographs/**/*"), out / "micrographs.star"]
    return {
        str(path.relative_to(out)): path.read_bytes().replace(b"%s/" % os.fsencode(out), b"OUT/")
        for path in files
        if path.is_file() and path not in left_out
    }


def snapshot() -> dict[str, tuple[int, int]]:
    """All that lies outside the output folders, with size and time of change."""
    known = OUT.name, UNDISTURBED.name, "said"
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in Path().rglob("*")
        if path.parts[0] not in known and not path.is_dir()
    }


def judged(inputs: Inputs, runs: list[Run], before: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """What must be so in the end, and whether it is."""
    found, expected = results(OUT, inputs.foreign), results(UNDISTURBED, [])
    stored = read_records(OUT)
    errors = {Path(record.input): record.error or "" for record in stored.failures}
    said = [run.said.read_text() for run in runs]
    lines = said[-1].splitlines()
    tables: dict[str, Any] = dict(starfile.read(OUT / "micrographs.star", always_dict=True))
    table = tables["micrographs"]
    # A table has no place for names with blanks and quotes: it leaves them out aloud.
    fit = [path for path in inputs.good if star_holds(result_name(path))]
    right = [name for name in expected if name.endswith("_aligned.mrc")]
    return {
        "all good ones were made": len(right) == len(inputs.good),
        "bytes are those of an undisturbed run": found == expected,
        "just the bad ones failed": sorted(errors) == sorted(inputs.bad),
        "each by name, in a line that says what to do": all(
            printable(path.name) in error and error.isprintable() and ";" in error
            for path, error in errors.items()
        ),
        "and is printed so": all(f"failed: {error}" in lines for error in errors.values()),
        "nothing unforeseen, no traceback": not any(
            word in text for text in said for word in ("Traceback", "unexpected", "please report")
        ),
        "what is printed is safe": all(
            line.isprintable() for text in said for line in text.splitlines()
        ),
        "tables list the good ones": len(table) == len(fit)  # pyright: ignore
        and any(f"leaves out {len(inputs.good) - len(fit)} of them" in line for line in lines),
        "nothing half-written is left": not list(OUT.rglob(".*")),
        "nothing outside was touched": snapshot() == before and not os.listdir("tmp"),
        "what others put there is as it was": all(
            p.read_bytes() == FOREIGN for p in inputs.foreign
        ),
        "nobody works any more": all_have_left(runs),
    }


def all_have_left(runs: list[Run]) -> bool:
    """Whether the workers of killed runs end by themselves, once each has done with its movie."""
    until = time.monotonic() + LEAVE_SECONDS
    while any(run.processes() for run in runs):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def growth_mb(out: Path) -> float:
    """By how much the peak memory of each process grew after its first tenth of movies, at most."""
    grown = [0.0]
    for path in out.glob("records/*.jsonl"):
        values = list(read_values(path))
        peaks = [value["peak_memory_bytes"] for value in values if "peak_memory_bytes" in value]
        if peaks:
            grown.append((peaks[-1] - peaks[len(peaks) // 10]) / 1e6)
    return round(max(grown), 1)


def prepare(folder: Path, count: int, each: int, seed: int) -> Inputs:
    """Inputs in a folder of their own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with chdir(folder):
        for name in ("said", "tmp"):
            Path(name).mkdir()
        return make_inputs(count, each, seed)


def killed(folder: Path, count: int, kills: int, each: int, seed: int) -> dict[str, Any]:
    """The trial with kills; its figures."""
    inputs = prepare(folder, count, each, seed)
    with chdir(folder):
        arguments = inputs.write_lists()
        before = snapshot()
        begun = time.perf_counter()
        undisturbed = Run(UNDISTURBED, [f"./{path}" for path in inputs.good])
        undisturbed.wait()
        seconds = time.perf_counter() - begun
        runs = run_and_kill(arguments, len(inputs.good), kills, random.Random(seed))
        grown = growth_mb(UNDISTURBED)
        checks = judged(inputs, [undisturbed, *runs], before)
        checks["memory is flat"] = grown < MOST_GROWTH_MB
        return {
            "movies": count,
            "good": len(inputs.good),
            "bad": len(inputs.bad),
            "kinds": len(KINDS),
            "kills": kills,
            "runs_ended_with": [run.wait() for run in runs],
            "seed": seed,
            "seconds_undisturbed_one_process": round(seconds, 1),
            "seconds_all": round(time.perf_counter() - begun, 1),
            "memory_growth_mb": grown,
            "failures": {
                printable(record.input): record.error for record in read_records(OUT).failures
            },
            "checks": checks,
        }


def watched(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """The trial of a folder that fills while it is watched; its figures."""
    inputs = prepare(folder, count, 1, seed)
    with chdir(folder):
        undisturbed = Run(UNDISTURBED, [f"./{path}" for path in inputs.good])
        arguments = inputs.write_lists()
        # Of what never comes a watch can say nothing.
        inputs.bad = [path for path in inputs.bad if path.exists()]
        undisturbed.wait()
        Path("in").rename("all")
        Path("in").mkdir()
        run = Run(OUT, arguments, "--workers", "2", *WATCH)
        arrive(inputs, random.Random(seed))
        run.wait()
        return {
            "movies": count,
            "bad": len(inputs.bad),
            "checks": judged(inputs, [undisturbed, run], snapshot()),
        }


def main() -> int:
    """Print the figures and keep them; 1 if something is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--movies", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = killed(Path(folder, "killed"), given.movies, given.kills, 2, given.seed)
        figures["watched"] = watched(Path(folder, "watched"), WATCHED_MOVIES, given.seed)
    text = json.dumps(figures, indent=2)
    print(text)
    (ROOT / "benchmarks" / "results" / "soak.json").write_text(text + "\n")
    return 0 if all((*figures["checks"].values(), *figures["watched"]["checks"].values())) else 1


if __name__ == "__main__":
    sys.exit(main())
