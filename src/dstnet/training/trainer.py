"""The trainer: AdamW, an averaged copy of the weights, validation, checkpoints from which it goes
on; one process or many.
"""

import math
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dstnet.core.randomness import stream
from dstnet.errors import DstnetError, SettingsError, WeightsError
from dstnet.io.leftovers import remove_leftovers
from dstnet.network.blocks import MovieNetwork
from dstnet.network.weights import ModelCard, build, load_matching_weights, save_weights
from dstnet.training.averaging import copy_weights, update_average
from dstnet.training.batch import Batch
from dstnet.training.checkpoint import Progress, State, load_checkpoint, save_checkpoint
from dstnet.training.data import Batches, Sources, load_batches, loader_processes
from dstnet.training.objectives import Objective, Supervised
from dstnet.training.process_group import Process
from dstnet.training.records import (
    RECORDS,
    LogRecord,
    RunRecord,
    append_log,
    check_same_run,
    shorten_log,
    write_records,
)
from dstnet.training.settings import TrainingSettings
from dstnet.training.validation import validate
from dstnet.version import __version__

CHECKPOINT_NAME = "checkpoint.safetensors"
WEIGHTS_NAME = "weights.safetensors"
NORMALISATION = (
    "dstnet.movie.normalise: mean zero, unit noise from 0.36 to 0.48 cycles per working pixel"
)
_GOLDEN_RATIO = 0.618034


class Trainer:
    """A training run in a folder: settings.yaml, run.json (what else it was made of), log.jsonl,
    checkpoint.safetensors.

    Parameters
    ----------
    folder
        Where the run lives; of several processes, the same for all.
    settings
        Of the run; of a resumed run they must equal the stored ones.
    train_on, held_out
        What is trained on, and what is only validated on.
    resume
        Go on from the folder's checkpoint, if there is one.
    process
        Which process this is.
    trained_names, held_out_names
        Digests of what is trained on and held out, by name, for the records.

    Raises
    ------
    WeightsError
        If the checkpoint is damaged, or of other settings or data.
    SettingsError
        If there is nothing to validate on that the settings ask for, or the batches cannot be dealt
        to the processes.
    OutputError
        If the records cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        settings: TrainingSettings,
        train_on: Sources,
        held_out: Sources,
        *,
        resume: bool = False,
        process: Process | None = None,
        trained_names: dict[str, str] | None = None,
        held_out_names: dict[str, str] | None = None,
    ):
        self.folder = folder
        self.settings = settings
        self.process = process or Process()
        self.device = self.process.device
        self._check(held_out)
        self.workers = loader_processes(settings.workers, self.device.type)
        self.data = Batches(
            settings.stream,
            train_on,
            batch=settings.batch,
            seed=settings.seed,
            recorded=settings.recorded,
            device="cpu" if self.workers else self.device,
        )
        self.held_out = self._held_out_batches(held_out) if held_out else None
        self._make_network()
        self.objective: Objective[Batch] = Supervised(settings, self.network.outputs)
        self.progress = Progress()
        self.record = RunRecord(
            device=self.device.type,
            processes=self.process.count,
            seed=settings.seed,
            started_from=self.started_from,
            trained_on=trained_names or {},
            held_out=held_out_names or {},
        )
        if resume and self.checkpoint_path.exists():
            self._resume()
        if self.process.first:
            self._begin_folder()

    def _check(self, held_out: Sources) -> None:
        batches = self.settings.batches
        count = self.process.count
        if batches % count:
            raise SettingsError(
                f"{batches} batches a step cannot be dealt to {count} processes; set batches to"
                f" {count} or a multiple of it"
            )
        if self._watches_validation and not held_out:
            raise SettingsError(
                "patience and the plateau schedule watch the residual on held-out structures; hold"
                " some out"
            )

    @property
    def _watches_validation(self) -> bool:
        return self.settings.patience is not None or self.settings.schedule == "plateau"

    def _held_out_batches(self, held_out: Sources) -> Batches:
        # The same fields for every validation, and no empty ones, of which nothing can be asked.
        ranges = self.settings.stream.model_copy(update={"empty": 0.0})
        return Batches(
            ranges,
            held_out,
            batch=2,
            seed=self.settings.seed + 1,
            recorded=self.settings.recorded,
            device=self.device,
        )

    def _make_network(self) -> None:
        settings = self.settings
        torch.manual_seed(settings.seed)
        network = build(settings.architecture, settings.network).to(self.device)
        self.started_from = None
        if settings.start_from:
            self.started_from = load_matching_weights(network, settings.start_from).sha256
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        average = copy_weights(network)
        self.state = State(network, optimizer, average, best=average)

    @property
    def network(self) -> MovieNetwork:
        """The network that trains."""
        return self.state.network

    @property
    def checkpoint_path(self) -> Path:
        """Where the checkpoint is."""
        return self.folder / CHECKPOINT_NAME

    def _resume(self) -> None:
        check_same_run(self.folder, self.settings, self.record)
        tensors, progress = load_checkpoint(self.checkpoint_path)
        try:
            self.state.restore(tensors, self.device)
        except (KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(
                f"cannot resume from {self.checkpoint_path}: it is of another network than the"
                f" settings' ({reason})"
            ) from None
        self.progress = progress

    def _begin_folder(self) -> None:
        write_records(self.folder, self.settings, self.record)
        shorten_log(self.folder, self.progress.step)
        for name in (*RECORDS, CHECKPOINT_NAME, WEIGHTS_NAME):
            stem = Path(name).stem
            remove_leftovers(self.folder, stem=stem, older_than_seconds=0.0, below=False)

    def save(self) -> None:
        """Write the checkpoint, see `save_checkpoint`.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        save_checkpoint(self.checkpoint_path, self.state.tensors(), self.progress)

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        settings = self.settings
        if step < settings.warm_up:
            return settings.learning_rate * (step + 1) / settings.warm_up
        match settings.schedule:
            case "cosine":
                length = max(1, settings.steps - settings.warm_up)
                turn = math.pi * (step - settings.warm_up) / length
                return settings.learning_rate * 0.5 * (1 + math.cos(turn))
            case "plateau":
                return settings.learning_rate * 0.5**self.progress.halved
            case "constant":
                return settings.learning_rate

    @property
    def ended(self) -> bool:
        """Whether the last step is done, or patience is at its end."""
        patience = self.settings.patience
        impatient = patience is not None and self.progress.since_best >= patience
        return impatient or self.progress.step >= self.settings.steps

    def train(self, report: Callable[[LogRecord], None]) -> None:
        """Run to the end; `report` gets each record of the log.

        Raises
        ------
        DstnetError
            If the loss is no longer a number; the last good checkpoint stays.
        OutputError
            If the log or a checkpoint cannot be written; the one before stays.
        """
        settings = self.settings
        process = self.process
        model = DistributedDataParallel(self.network) if process.count > 1 else self.network
        batches = load_batches(self.data, self._batch_numbers(), self.workers)
        started = time.perf_counter() - self.progress.seconds
        losses = []
        if self.progress.step == 0 and settings.start_from and process.first:
            report(LogRecord(0, self.validate()))
        self.network.train()
        while not self.ended:
            own, loss = self._step(model, batches)
            if not own:  # with a frame's own image it is a sum of more
                losses.append(loss)
            step = self.progress.step + 1
            seconds = time.perf_counter() - started
            self.progress = self.progress.model_copy(update={"step": step, "seconds": seconds})
            update_average(self.state.average, self.network, step=step, decay=settings.average)
            if step % settings.checkpoint_every == 0 or step == settings.steps:
                self._close_interval(sum(losses) / max(1, len(losses)), report)
                losses.clear()

    def _batch_numbers(self) -> list[int]:
        """Of all batches of this process that are still to come."""
        batches = self.settings.batches
        return [
            step * batches + j
            for step in range(self.progress.step, self.settings.steps)
            for j in range(self.process.number, batches, self.process.count)
        ]

    def _step(self, model: nn.Module, batches: Iterator[Batch]) -> tuple[bool, float]:
        """One step: whether a frame's own image was asked for, and the loss."""
        settings = self.settings
        step = self.progress.step
        process = self.process
        # All that is random in a step follows from its number, so that a resumed run needs no
        # generator's state.
        torch.manual_seed(stream(settings.seed, "step", step, process.number).initial_seed())
        for group in self.state.optimizer.param_groups:
            group["lr"] = self.rate(step)
        # A frame's own image costs a second pass of the re-constructor, so only some steps ask for
        # it; which, the step number says.
        turn = (step * _GOLDEN_RATIO) % 1
        own = self.network.gives_frames and turn < settings.frame_weight
        self.state.optimizer.zero_grad(set_to_none=True)
        count = settings.batches // process.count
        loss = 0.0
        for j in range(count):
            if isinstance(model, DistributedDataParallel):
                model.require_backward_grad_sync = j == count - 1  # as its no_sync() does
            batch = next(batches).to(self.device)
            part = self.objective(model, batch if own else batch.without_frame()) / count
            part.backward()
            loss += float(part.detach())
        loss = process.mean(loss)
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip))
        self._check_finite(loss, norm)
        self.state.optimizer.step()
        return own, loss

    def _check_finite(self, loss: float, norm: float) -> None:
        if math.isfinite(loss + norm):
            return
        if math.isfinite(loss):
            what = f"the gradient became {norm}"
        else:
            what = f"loss became {loss}"
        raise DstnetError(
            f"{what} at step {self.progress.step + 1}; the last checkpoint stays: lower"
            " learning_rate"
        )

    def _close_interval(self, loss: float, report: Callable[[LogRecord], None]) -> None:
        """Validate, log, save: in this order, so that a kill between leaves a line too many, which
        is dropped and made again.
        """
        measured = self.validate() if self.process.first else {}
        residual = self.process.of_first(measured.get("residual"))
        if residual is not None and self._watches_validation:
            self._judge(residual)
        if not self.process.first:
            return
        seconds = round(self.progress.seconds)
        record = LogRecord(self.progress.step, measured, seconds, loss)
        append_log(self.folder, record)
        self.save()
        report(record)

    def _judge(self, residual: float) -> None:
        """Take note of a residual on what is held out, and of the weights if they are the best."""
        settings = self.settings
        plateau = settings.plateau if settings.schedule == "plateau" else None
        self.progress = self.progress.after(residual, plateau)
        if settings.patience and self.progress.best_step == self.progress.step:
            self.state.best = {name: v.clone() for name, v in self.state.average.items()}

    def release(self) -> Path:
        """Write the averaged weights, the best ones where there was patience, with a card that says
        how they were made.

        Raises
        ------
        OutputError
            If they cannot be written.
        """
        path = self.folder / WEIGHTS_NAME
        network = self.averaged(self.state.best)
        if self.process.first:
            save_weights(network, self._card(network), path)
        return path

    def _card(self, network: MovieNetwork) -> ModelCard:
        settings = self.settings
        ranges = self.settings.stream
        # Of a complete movie; of weights of windows, of one frame.
        exposure = ranges.frame_exposure_e_per_a2 if ranges.window else ranges.exposure_e_per_a2
        return ModelCard(
            name=f"{settings.architecture}-{self.folder.name}",
            architecture=settings.architecture,
            architecture_settings=network.settings.model_dump(mode="json"),
            parameters=sum(p.numel() for p in network.parameters()),
            working_pixel_angstrom=ranges.working_pixel_angstrom,
            groups=ranges.window or ranges.groups,
            window=ranges.window,
            valid_pixel_angstrom=(0.5, ranges.working_pixel_angstrom),
            valid_exposure_e_per_a2=exposure,
            normalisation=NORMALISATION,
            training={
                "settings": settings.model_dump(mode="json"),
                "steps": self.progress.best_step if settings.patience else self.progress.step,
                "started_from": self.started_from,
                "hours": round(self.progress.seconds / 3600, 2),
                "version": __version__,
                "trained_on": self.record.trained_on,
                "held_out": self.record.held_out,
            },
        )

    def averaged(self, weights: dict[str, torch.Tensor] | None = None) -> MovieNetwork:
        """A network with the averaged weights, or with other ones."""
        network = build(self.settings.architecture, self.settings.network)
        network.load_state_dict(self.state.average if weights is None else weights)
        return network.to(self.device).eval()

    @cached_property
    def _validation(self) -> list[Batch]:
        """What is validated on: the same each time, so it is made once."""
        if self.held_out is None:
            return []
        return [self.held_out[i] for i in range(self.settings.validate_batches)]

    def validate(self) -> dict[str, float]:
        """Measures of the averaged weights on what is held out, see
        `dstnet.training.validation.validate`.

        Raises
        ------
        BadInputError
            If a held-out movie cannot be read.
        """
        if not self._validation:
            return {}
        return validate(self.averaged(), self._validation, self.device)
