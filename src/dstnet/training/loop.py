"""The training loop: crops from the simulator, AdamW, an averaged copy of the weights, checkpoints from which it goes on."""

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dstnet import __version__
from dstnet.core.settings import Settings
from dstnet.errors import DstnetError, OutputError, WeightsError
from dstnet.io import atomic_path, ensure_writable_folder
from dstnet.metrics.image import residual_energy
from dstnet.network.blocks import MovieNetwork
from dstnet.network.weights import Card, build, save_weights
from dstnet.specimen.species import Species
from dstnet.training.losses import ring_correlation_loss, squared_error
from dstnet.training.species import prepare
from dstnet.training.stream import CropStream, StreamSettings

STRONG = 0.005  # of a target's power, in units of the noise's: about where particles come out of the noise by eye


class TrainingSettings(Settings):
    """One training run."""

    architecture: str = "dstnet"
    network: dict = Field(default_factory=dict, description="settings of the architecture that differ from its defaults")
    stream: StreamSettings = StreamSettings()
    held_out: tuple[str, ...] = Field(default=(), description="structures, by file name, that are only validated on")
    phantoms: int = Field(default=24, ge=0, description="structures made by formula to train on beside those given")
    poses: int = Field(default=64, ge=1, description="projections of each structure kept for training")
    seed: int = 0
    steps: int = Field(default=6000, ge=1)
    batch: int = Field(default=3, ge=1)
    learning_rate: float = Field(default=8e-4, gt=0)
    warm_up: int = Field(default=200, ge=0, description="steps of linear rise; then a half cosine to nothing")
    weight_decay: float = Field(default=1e-4, ge=0)
    average: float = Field(default=0.999, ge=0, lt=1, description="decay of the averaged copy that is released")
    clip: float = Field(default=1.0, gt=0, description="largest gradient norm")
    power_floor: float = Field(default=5e-4, gt=0, description="see losses.squared_error, in units of the noise's power")
    ring_weight: float = Field(default=0.3, ge=0, description="weight of the ring correlation loss")
    frame_weight: float = Field(default=0.15, ge=0, description="weight, and part of the steps, of a single frame's own target")
    rings: int = Field(default=48, ge=4)
    checkpoint_every: int = Field(default=250, ge=1)
    validate_batches: int = Field(default=10, ge=0)
    workers: int = Field(default=1, ge=0, description="processes that simulate; 0 simulates between steps")


def train_run(
    folder: Path,
    structures: Sequence[Path],
    settings: TrainingSettings,
    *,
    resume: bool = False,
    say: Callable[[str], None] = lambda line: None,
    report: Callable[[dict], None] = lambda record: None,
) -> Path:
    """Train in `folder` from structure files (none: phantoms alone) and write the weights with their card there.

    Parameters
    ----------
    structures
        PDB or mmCIF files.
    settings
        Of the run.
    resume
        Go on from the folder's checkpoint.
    say, report
        Get remarks, and each logged record.

    Returns
    -------
    Path
        ``folder/weights.safetensors``.

    Raises
    ------
    SettingsError, OutputError, WeightsError
        As `Run` and `prepare`.
    """
    # The run's own folder is judged before the minutes that banks take.
    ensure_writable_folder(folder)
    if not resume and (folder / "checkpoint.safetensors").exists():
        raise OutputError(f"{folder} already holds a training run; add --resume to go on with it, or choose another folder")
    train, held_out, digests = prepare(
        structures,
        settings.held_out,
        phantoms=settings.phantoms,
        poses=settings.poses,
        pixel_size_angstrom=settings.stream.working_pixel_angstrom,
        seed=settings.seed,
        widest_angstrom=settings.stream.crop * settings.stream.working_pixel_angstrom,
        report=say,
    )
    run = Run(folder, settings, train, held_out, resume)
    run.train(report)
    names = {"trained_on": [s.name for s in train], "held_out": [s.name for s in held_out]}
    return run.release({k: {n: digests[n] for n in v} for k, v in names.items()})


def loss_of(output: Tensor, target: Tensor, settings: TrainingSettings) -> Tensor:
    """The training loss of [batch, channel, y, x]."""
    loss = squared_error(output, target, settings.power_floor)
    if settings.ring_weight:
        loss = loss + settings.ring_weight * ring_correlation_loss(output, target, settings.rings)
    return loss


class Run:
    """A training run in a folder: settings.yaml, log.jsonl, checkpoint.safetensors.

    Parameters
    ----------
    folder
        Where the run lives.
    settings
        Of the run; of a resumed run they must equal the stored ones.
    species, held_out
        Banked species to train on, and those that are only validated on.
    resume
        Go on from the folder's checkpoint.

    Raises
    ------
    WeightsError
        If the checkpoint is damaged or of other settings.
    """

    def __init__(
        self, folder: Path, settings: TrainingSettings, species: Sequence[Species], held_out: Sequence[Species], resume: bool = False
    ):
        self.folder, self.settings, self.species, self.held_out = folder, settings, species, held_out
        torch.manual_seed(settings.seed)
        self.network = build(settings.architecture, settings.network)
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self.step, self.seconds = 0, 0.0
        path = folder / "checkpoint.safetensors"
        if resume and path.exists():
            self._load(path)
        with atomic_path(folder / "settings.yaml") as temporary:
            temporary.write_text(settings.to_yaml())

    def _load(self, path: Path) -> None:
        stored = TrainingSettings.from_yaml(self.folder / "settings.yaml")
        if stored.model_copy(update={"workers": self.settings.workers}) != self.settings:
            raise WeightsError(f"{self.folder} was trained with other settings than those given; resume with its own settings.yaml")
        try:
            tensors = load_file(path)
            self.network.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
            self.average = {k[8:]: v for k, v in tensors.items() if k.startswith("average.")}
            for i, parameter in enumerate(self.network.parameters()):
                self.optimizer.state[parameter] = {n: tensors[f"optimizer.{i}.{n}"] for n in ("step", "exp_avg", "exp_avg_sq")}
            self.step, self.seconds = int(tensors["step"]), float(tensors["seconds"])
        except (SafetensorError, KeyError, RuntimeError) as error:
            raise WeightsError(f"cannot resume from {path}: {' '.join(str(error).split())[:200]}") from None

    def save(self) -> None:
        """Write the checkpoint: to a temporary name, then renamed, so that a kill or a full disk leaves the last good one."""
        tensors = {f"model.{k}": v.contiguous() for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v.contiguous() for k, v in self.average.items()}
        for i, parameter in enumerate(self.network.parameters()):
            tensors |= {f"optimizer.{i}.{n}": v.contiguous() for n, v in self.optimizer.state[parameter].items()}
        tensors["step"], tensors["seconds"] = torch.tensor(self.step), torch.tensor(self.seconds, dtype=torch.float64)
        try:
            with atomic_path(self.folder / "checkpoint.safetensors") as temporary:
                save_file(tensors, temporary)
        except (OutputError, SafetensorError) as error:
            raise OutputError(f"{error}; the checkpoint before it is kept: add --resume once that is mended") from None

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        s = self.settings
        if step < s.warm_up:
            return s.learning_rate * (step + 1) / s.warm_up
        return s.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - s.warm_up) / max(1, s.steps - s.warm_up)))

    def train(self, report: Callable[[dict], None]) -> None:
        """Run to the last step; `report` gets each logged record.

        Raises
        ------
        DstnetError
            If the loss is no longer a number; the last good checkpoint stays.
        """
        s = self.settings
        data = CropStream(s.stream, self.species, s.batch, s.seed, self.step, s.steps)
        loader = DataLoader(data, batch_size=None, num_workers=s.workers, prefetch_factor=4 if s.workers else None)
        started, losses = time.perf_counter() - self.seconds, []
        self.network.train()
        for frames, total, exposure, target, frame_target, which in loader:
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate(self.step)
            # A frame's own image costs a second pass of the re-constructor, so only some steps ask for it; which, the step number says.
            own = int(which) if (self.step * 0.618034) % 1 < s.frame_weight else None
            with torch.autocast(frames.device.type, dtype=torch.bfloat16):
                output = self.network(frames, total, exposure, own).float()
            loss = loss_of(output[:, :1], target[:, None], s)
            if own is not None:
                loss = loss + loss_of(output[:, 1:], frame_target[:, None], s)
            if not torch.isfinite(loss):
                value = float(loss.detach())
                raise DstnetError(f"loss became {value} at step {self.step + 1}; the last checkpoint stays: lower learning_rate")
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), s.clip)
            self.optimizer.step()
            self.step += 1
            decay = min(s.average, self.step / (self.step + 10))
            with torch.no_grad():
                for name, value in self.network.state_dict().items():
                    self.average[name].lerp_(value, 1 - decay)
            if own is None:
                losses.append(float(loss.detach()))
            self.seconds = time.perf_counter() - started
            if self.step % s.checkpoint_every == 0 or self.step == s.steps:
                record = {"step": self.step, "seconds": round(self.seconds), "loss": sum(losses) / max(1, len(losses)), **self.validate()}
                losses.clear()
                self.save()
                try:
                    with open(self.folder / "log.jsonl", "a") as log:
                        log.write(json.dumps(record) + "\n")
                except OSError as error:
                    raise OutputError(f"cannot write {self.folder / 'log.jsonl'}: {error}; free some space and add --resume") from None
                report(record)

    def release(self, structures: dict) -> Path:
        """Write the averaged weights with a card that says how they were made; `structures` are names with digests."""
        s, network, path = self.settings, self.averaged(), self.folder / "weights.safetensors"
        card = Card(
            name=f"{s.architecture}-{self.folder.name}",
            architecture=s.architecture,
            architecture_settings=network.settings.model_dump(mode="json"),
            parameters=sum(p.numel() for p in network.parameters()),
            working_pixel_angstrom=s.stream.working_pixel_angstrom,
            fractions=s.stream.fractions,
            valid_pixel_angstrom=(0.5, s.stream.working_pixel_angstrom),
            valid_exposure_e_per_a2=s.stream.exposure_e_per_a2,
            normalisation="dstnet.movie.normalise: mean zero, unit noise from 0.36 to 0.48 cycles per working pixel",
            training={
                "settings": s.model_dump(mode="json"),
                "steps": self.step,
                "hours": round(self.seconds / 3600, 2),
                "version": __version__,
                **structures,
            },
        )
        save_weights(network, card, path)
        return path

    def averaged(self) -> MovieNetwork:
        """A network with the averaged weights."""
        network = build(self.settings.architecture, self.settings.network)
        network.load_state_dict(self.average)
        return network.eval()

    def validate(self) -> dict[str, float]:
        """Residual energy on held-out species, the same crops each time, below and above a signal power of `STRONG`."""
        s = self.settings
        if not self.held_out or not s.validate_batches:
            return {}
        network, found = self.averaged(), {"low": [], "high": []}
        ranges = s.stream.model_copy(update={"empty": 0.0})
        for frames, total, exposure, target, _, _ in CropStream(ranges, self.held_out, 2, s.seed + 1, 0, s.validate_batches):
            with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
                output = network(frames, total, exposure).float()[:, 0]
            for i in range(len(output)):
                strong = float(target[i].square().mean()) > STRONG
                found["high" if strong else "low"].append(residual_energy(output[i], target[i]))
        return {f"residual_{k}": sum(v) / len(v) for k, v in found.items() if v}
