"""The training loop: AdamW, an averaged copy of the weights, validation, checkpoints from which it
goes on; one process or many.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dstnet import __version__
from dstnet.core.randomness import stream
from dstnet.errors import DstnetError, SettingsError, WeightsError
from dstnet.io import atomic_path
from dstnet.network.blocks import MovieNetwork
from dstnet.network.engine import autocast
from dstnet.network.weights import ModelCard, build, load_matching_weights, save_weights
from dstnet.specimen.species import Species
from dstnet.training.checkpoint import (
    Progress,
    append_log,
    load_checkpoint,
    save_checkpoint,
    shorten_log,
)
from dstnet.training.data import Batch, Batches, loaded
from dstnet.training.losses import error_likelihood, image_loss
from dstnet.training.process_group import Process
from dstnet.training.settings import TrainingSettings
from dstnet.training.stored_crops import RecordedMovie
from dstnet.training.validation import validate

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # what AdamW keeps of each parameter


Sources = tuple[Sequence[Species], Sequence[RecordedMovie]]


class Run:
    """A training run in a folder: settings.yaml, run.json (what else it was made of), log.jsonl,
    checkpoint.safetensors.

    Parameters
    ----------
    folder
        Where the run lives; of several processes, the same for all.
    settings
        Of the run; of a resumed run they must equal the stored ones.
    train_on, held_out
        Banked species and movies on disk to train on, and those that are only validated on.
    resume
        Go on from the folder's checkpoint, if there is one.
    process
        Which process this is.
    made_of
        Digests of what is trained on and held out, by name, for the records.

    Raises
    ------
    WeightsError
        If the checkpoint is damaged, or of other settings or data.
    SettingsError
        If there is nothing to validate on that the settings ask for, or the batches cannot be dealt
        to the processes.
    """

    def __init__(
        self,
        folder: Path,
        settings: TrainingSettings,
        train_on: Sources,
        held_out: Sources,
        resume: bool = False,
        process: Process | None = None,
        made_of: dict[str, dict[str, str]] | None = None,
    ):
        self.folder, self.settings, self.process, self.made_of = (
            folder,
            settings,
            process or Process(),
            made_of or {},
        )
        self.device = self.process.device
        if settings.batches % self.process.count:
            raise SettingsError(
                f"{settings.batches} batches a step cannot be dealt to {self.process.count}"
                f" processes; set batches to {self.process.count} or a multiple of it"
            )
        if not any(held_out) and (settings.patience or settings.schedule == "plateau"):
            raise SettingsError(
                "patience and the plateau schedule watch the residual on held-out structures; hold"
                " some out"
            )
        self.workers = (
            settings.workers if settings.workers is not None else int(self.device.type == "cpu")
        )
        self.data = self._batches(
            train_on,
            settings.stream,
            settings.batch,
            settings.seed,
            "cpu" if self.workers else self.device,
        )
        # The same field for every judgement, and no empty ones, of which nothing can be asked.
        full = settings.stream.model_copy(update={"empty": 0.0})
        self.held_out = (
            self._batches(held_out, full, 2, settings.seed + 1, self.device)
            if any(held_out)
            else None
        )

        torch.manual_seed(settings.seed)
        self.network = build(settings.architecture, settings.network).to(self.device)
        self.started_from = (
            load_matching_weights(self.network, settings.start_from).sha256
            if settings.start_from
            else None
        )
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.best = self.average
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.progress = Progress()
        if resume and (folder / "checkpoint.safetensors").exists():
            self._load(folder / "checkpoint.safetensors")
        if self.process.first:
            self._write_records()

    def _batches(
        self, sources: Sources, ranges: Any, batch: int, seed: int, device: torch.device | str
    ) -> Batches:
        return Batches(
            ranges, *sources, batch=batch, seed=seed, recorded=self.settings.recorded, device=device
        )

    def _write_records(self) -> None:
        with atomic_path(self.folder / "settings.yaml") as temporary:
            temporary.write_text(self.settings.to_yaml())
        record = {
            "version": __version__,
            "torch": torch.__version__,
            "device": self.device.type,
            "processes": self.process.count,
            "seed": self.settings.seed,
            "started_from": self.started_from,
            **self.made_of,
        }
        with atomic_path(self.folder / "run.json") as temporary:
            temporary.write_text(json.dumps(record, indent=2) + "\n")
        shorten_log(self.folder / "log.jsonl", self.progress.step)
        for leftover in self.folder.glob(
            ".checkpoint.*.safetensors"
        ):  # of a kill while one was written
            leftover.unlink(missing_ok=True)

    def _load(self, path: Path) -> None:
        stored = TrainingSettings.from_yaml(self.folder / "settings.yaml")
        if stored.model_copy(update={"workers": self.settings.workers}) != self.settings:
            raise WeightsError(
                f"{self.folder} was trained with other settings than those given; resume with its"
                " own settings.yaml"
            )
        try:
            record = json.loads((self.folder / "run.json").read_text())
            other = {
                k for k, v in self.made_of.items() if list(record[k].items()) != list(v.items())
            }
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise WeightsError(
                f"cannot resume: {self.folder / 'run.json'} cannot be read ({error}); copy the"
                " whole folder again"
            ) from None
        if other:
            raise WeightsError(
                f"{self.folder} was trained with other data ({', '.join(sorted(other))} in"
                " run.json); give the same, in order"
            )
        tensors, progress = load_checkpoint(path)

        def part(name: str) -> dict[str, Tensor]:
            return {
                k.removeprefix(f"{name}."): v.to(self.device)
                for k, v in tensors.items()
                if k.startswith(f"{name}.")
            }

        try:
            self.network.load_state_dict(part("model"))
            average = part("average")
            self.average = {k: average[k] for k in self.average}
            self.best = part("best") or self.average
            for i, parameter in enumerate(self.network.parameters()):
                moments = {n: tensors[f"optimizer.{i}.{n}"] for n in _MOMENTS}
                self.optimizer.state[parameter] = {
                    n: v if n == "step" else v.to(self.device) for n, v in moments.items()
                }
        except (KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(
                f"cannot resume from {path}: it is of another network than the settings' ({reason})"
            ) from None
        self.progress = progress

    def save(self) -> None:
        """Write the checkpoint, see `save_checkpoint`."""
        tensors = {f"model.{k}": v for k, v in self.network.state_dict().items()} | {
            f"average.{k}": v for k, v in self.average.items()
        }
        if self.best is not self.average:
            tensors |= {f"best.{k}": v for k, v in self.best.items()}
        for i, parameter in enumerate(self.network.parameters()):
            tensors |= {f"optimizer.{i}.{n}": self.optimizer.state[parameter][n] for n in _MOMENTS}
        save_checkpoint(self.folder / "checkpoint.safetensors", tensors, self.progress)

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        s = self.settings
        if step < s.warm_up:
            return s.learning_rate * (step + 1) / s.warm_up
        match s.schedule:
            case "cosine":
                return (
                    s.learning_rate
                    * 0.5
                    * (1 + math.cos(math.pi * (step - s.warm_up) / max(1, s.steps - s.warm_up)))
                )
            case "plateau":
                return s.learning_rate * 0.5**self.progress.halved
            case "constant":
                return s.learning_rate

    @property
    def ended(self) -> bool:
        """Whether the last step is done, or patience is at its end."""
        patience = self.settings.patience
        return self.progress.step >= self.settings.steps or (
            patience is not None and self.progress.since_best >= patience
        )

    def train(self, report: Callable[[dict], None]) -> None:
        """Run to the end; `report` gets each logged record.

        Raises
        ------
        DstnetError
            If the loss is no longer a number; the last good checkpoint stays.
        OutputError
            If the log or a checkpoint cannot be written; the one before stays.
        """
        s, process = self.settings, self.process
        model = DistributedDataParallel(self.network) if process.count > 1 else self.network
        numbers = [
            t * s.batches + j
            for t in range(self.progress.step, s.steps)
            for j in range(process.number, s.batches, process.count)
        ]
        batches = loaded(self.data, numbers, self.workers)
        started, losses = time.perf_counter() - self.progress.seconds, []
        if self.progress.step == 0 and s.start_from and process.first:
            report({"step": 0, **self.validate()})
        self.network.train()
        while not self.ended:
            own, loss = self._step(model, batches)
            if not own:  # with a frame's own image it is a sum of more
                losses.append(loss)
            self.progress = self.progress.model_copy(
                update={"step": self.progress.step + 1, "seconds": time.perf_counter() - started}
            )
            self._follow()
            if self.progress.step % s.checkpoint_every == 0 or self.progress.step == s.steps:
                self._record(sum(losses) / max(1, len(losses)), report)
                losses.clear()

    def _step(self, model: nn.Module, batches: Any) -> tuple[bool, float]:
        """One step: whether a frame's own image was asked for, and the loss."""
        s, step, process = self.settings, self.progress.step, self.process
        # All that is random in a step follows from its number, so that a resumed run needs no
        # generator's state.
        torch.manual_seed(stream(s.seed, "step", step, process.number).initial_seed())
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step)
        # A frame's own image costs a second pass of the re-constructor, so only some steps ask for
        # it; which, the step number says.
        own = (step * 0.618034) % 1 < s.frame_weight
        self.optimizer.zero_grad(set_to_none=True)
        count, loss = s.batches // process.count, 0.0
        for j in range(count):
            if isinstance(model, DistributedDataParallel):
                model.require_backward_grad_sync = j == count - 1  # as its no_sync() does
            part = self._loss(model, next(batches), own) / count
            part.backward()
            loss += float(part.detach())
        loss = process.mean(loss)
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), s.clip))
        if not math.isfinite(loss + norm):
            what = (
                f"loss became {loss}" if not math.isfinite(loss) else f"the gradient became {norm}"
            )
            raise DstnetError(
                f"{what} at step {step + 1}; the last checkpoint stays: lower learning_rate"
            )
        self.optimizer.step()
        return own, loss

    def _loss(self, model: nn.Module, batch: Batch, own: bool) -> Tensor:
        s = self.settings
        *images, which = batch
        frames, total, exposure, target, contrast, particles, frame_target = (
            x.to(self.device, non_blocking=True) for x in images
        )
        with autocast(self.device):
            output = model(frames, total, exposure, int(which) if own else None).float()
        named = {name: output[:, i : i + 1] for i, name in enumerate(self.network.outputs)}

        def of(image: Tensor, truth: Tensor, floor: float) -> Tensor:
            weights = {
                "ring_weight": s.ring_weight,
                "rings": s.rings,
                "focal_weight": s.focal_weight,
            }
            return image_loss(image, truth[:, None], floor, kind=s.pixel_loss, **weights)

        loss = of(named["micrograph"], target, s.power_floor)
        if "contrast" in named:
            loss = loss + s.contrast_weight * of(named["contrast"], contrast, s.contrast_floor)
        if "uncertainty" in named:
            loss = loss + s.uncertainty_weight * error_likelihood(
                named["uncertainty"], named["micrograph"], target[:, None]
            )
        if "particles" in named:
            likely = named["particles"].clamp(1e-6, 1 - 1e-6)
            loss = loss + s.particles_weight * nn.functional.binary_cross_entropy(
                likely, particles[:, None]
            )
        if own:
            loss = loss + of(output[:, len(named) :], frame_target, s.power_floor)
        return loss

    def _follow(self) -> None:
        """Move the averaged copy after the weights."""
        decay = min(self.settings.average, self.progress.step / (self.progress.step + 10))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)

    def _record(self, loss: float, report: Callable[[dict], None]) -> None:
        """Validate, log, save: in this order, so that a kill between leaves a line too many, which
        is dropped and made again.
        """
        s = self.settings
        measured = self.validate() if self.process.first else {}
        residual = self.process.of_first(measured.get("residual"))
        if residual is not None and (s.patience or s.schedule == "plateau"):
            self.progress = self.progress.after(
                residual, s.plateau if s.schedule == "plateau" else None
            )
            if s.patience:
                better = self.progress.best_step == self.progress.step
                self.best = {k: v.clone() for k, v in self.average.items()} if better else self.best
        if self.process.first:
            record = {
                "step": self.progress.step,
                "seconds": round(self.progress.seconds),
                "loss": loss,
                **measured,
            }
            append_log(self.folder / "log.jsonl", record)
            self.save()
            report(record)

    def release(self) -> Path:
        """Write the averaged weights, the best ones where there was patience, with a card that says
        how they were made.
        """
        s, path = self.settings, self.folder / "weights.safetensors"
        network = self.averaged(self.best)
        if not self.process.first:
            return path
        card = ModelCard(
            name=f"{s.architecture}-{self.folder.name}",
            architecture=s.architecture,
            architecture_settings=network.settings.model_dump(mode="json"),
            parameters=sum(p.numel() for p in network.parameters()),
            working_pixel_angstrom=s.stream.working_pixel_angstrom,
            fractions=s.stream.window or s.stream.fractions,
            window=s.stream.window,
            valid_pixel_angstrom=(0.5, s.stream.working_pixel_angstrom),
            # Of a whole movie; of weights of windows, of one frame.
            valid_exposure_e_per_a2=(
                s.stream.frame_exposure_e_per_a2 if s.stream.window else s.stream.exposure_e_per_a2
            ),
            normalisation=(
                "dstnet.movie.normalise: mean zero, unit noise from 0.36 to 0.48 cycles per working"
                " pixel"
            ),
            training={
                "settings": s.model_dump(mode="json"),
                "steps": self.progress.best_step if s.patience else self.progress.step,
                "started_from": self.started_from,
                "hours": round(self.progress.seconds / 3600, 2),
                "version": __version__,
                **self.made_of,
            },
        )
        save_weights(network, card, path)
        return path

    def averaged(self, weights: dict[str, Tensor] | None = None) -> MovieNetwork:
        """A network with the averaged weights, or with other ones."""
        network = build(self.settings.architecture, self.settings.network)
        network.load_state_dict(self.average if weights is None else weights)
        return network.to(self.device).eval()

    @cached_property
    def _validation(self) -> list[Batch]:
        """The crops that are validated on: the same each time, so they are made once."""
        return (
            [self.held_out[i] for i in range(self.settings.validate_batches)]
            if self.held_out
            else []
        )

    def validate(self) -> dict[str, float]:
        """Measures of the averaged weights on what is held out, see
        `dstnet.training.validation.validate`.
        """
        return validate(self.averaged(), self._validation, self.device) if self._validation else {}
