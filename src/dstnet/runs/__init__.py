"""Work dealt to processes here or on a cluster: one call, typed outcomes."""

from dstnet.runs.cluster import SlurmSettings
from dstnet.runs.local import torch_threads
from dstnet.runs.memory import keep_freed_memory, peak_memory_bytes
from dstnet.runs.processors import limit_libraries, processors
from dstnet.runs.signals import stop_signals
from dstnet.runs.tasks import Done, Job, Outcome, Outcomes, Shard, WorkerCrash
from dstnet.runs.workplace import Workplace, prepare, run_tasks

__all__ = [
    "Done",
    "Job",
    "Outcome",
    "Outcomes",
    "Shard",
    "SlurmSettings",
    "WorkerCrash",
    "Workplace",
    "keep_freed_memory",
    "limit_libraries",
    "peak_memory_bytes",
    "prepare",
    "processors",
    "run_tasks",
    "stop_signals",
    "torch_threads",
]
