"""Trial: dstnet-3 frozen, and beside it small heads on a grid of 8 Å that see a wide field; judged on real fields as it goes.

    python trials/coarse_heads.py RUN STRUCTURES REAL TOOLS --until 19:00

Three heads learn from the same crops, so that each is the others' control: "wide" (dilated convolutions, statistics of the field, and the
total multiplied by the transfer function), "plain" (the same without the transfer function) and "narrow" (with it, but without dilation
and statistics). They correct contrast and particles; the micrograph stays dstnet-3's. The run goes on from RUN/checkpoint.pt. Its rate
falls to nothing at the time `--until` (UTC). `--judge chosen` judges a checkpoint on the fields to choose by and what is held out, `--judge kept` on
the fields kept apart, once.
"""

import argparse
import importlib.util
import json
import math
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dstnet.core.fourier import resample
from dstnet.enhancement.contamination import dark_mask, replaced
from dstnet.enhancement.evidence import filled
from dstnet.movie.band import noise_band, reflected, whitened
from dstnet.movie.normalise import normalised
from dstnet.network.dstnet import exposure_features
from dstnet.network.engine import autocast
from dstnet.network.weights import load_weights
from dstnet.optics.thon import fit_thon_rings
from dstnet.training.data import Batches
from dstnet.training.degradation import DegradationSettings
from dstnet.training.losses import image_loss
from dstnet.training.species import prepare
from dstnet.training.stream import StreamSettings

CPU = torch.device("cpu")
COARSE = 4  # working pixels of 2 Å in one of the heads
HELD_OUT = ("1bxn", "6vxx", "4zxb", "3sn6", "2cg9", "1kx5")
HEADS = {"wide": (True, True), "plain": (True, False), "narrow": (False, True)}  # whether wide, whether told the transfer function
STREAM = StreamSettings(
    crop=320,
    fractions=4,
    single=0.5,
    whole=0.2,
    contrast=(0.4, 3.0),
    exposure_e_per_a2=(2.0, 110.0),
    crowded=0.35,
    empty=0.08,
    solid_contrast=True,
    transfer_input=0.8,
    crystals=0.05,
    film=0.05,
    degradation=DegradationSettings(coloured=0.4, illumination=0.3, tinted=0.3, limited=0.5, dark=0.0),
)
SEED, BATCH, RATE, WARM_UP, AVERAGE = 31, 3, 1e-3, 30, 0.99
BOUND = 6.0
LOG_EVERY = 10
VALIDATED = 8  # held-out batches


class Head(nn.Module):
    """Corrections of contrast and of the particles' logit, from the trunk's features and what it was given, on the coarse grid."""

    def __init__(self, channels: int, wide: bool, width: int = 48):
        super().__init__()
        self.enter = nn.Conv2d(channels, width, 1)
        spread = (1, 2, 4, 8) if wide else (1, 1, 1, 1)
        self.first = nn.ModuleList(nn.Conv2d(width, width, 3, padding=d, dilation=d, padding_mode="reflect") for d in spread)
        self.second = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect") for _ in spread)
        self.field = nn.ModuleList(nn.Linear(2 * width, 2 * width) for _ in spread) if wide else None
        self.leave = nn.Conv2d(width, 2, 3, padding=1, padding_mode="reflect")
        for layer in (*self.second, *(self.field or ()), self.leave):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.enter(x), 0.1)
        for i, (first, second) in enumerate(zip(self.first, self.second, strict=True)):
            y = F.leaky_relu(first(x), 0.1)
            if self.field is not None:
                statistics = torch.cat((x.float().mean((-2, -1)), x.float().std((-2, -1))), 1)
                scale, offset = self.field[i](statistics)[..., None, None].chunk(2, 1)
                y = y * (1 + scale) + offset
            x = x + second(y)
        return self.leave(x).float()


class Trunk:
    """dstnet-3 as it is, and what the heads are given of it."""

    def __init__(self) -> None:
        self.network, self.card = load_weights("dstnet-3")
        self.network.requires_grad_(False)
        self.kept: dict[int, Tensor] = {}
        for i in (0, 1):
            self.network.reconstructor.up[i].register_forward_hook(lambda _m, _i, out, i=i: self.kept.__setitem__(i, out))

    @torch.no_grad()
    def __call__(self, frames: Tensor, total: Tensor, exposure: Tensor, aside: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [batch, (contrast, logit, micrograph), y, x] and coarse inputs [batch, channel, y, x], that of the CTF last."""
        with autocast(CPU):
            out = self.network(frames, total, exposure).float()
        named = dict(zip(self.network.outputs, out.unbind(1), strict=True))
        logit = named["particles"].clamp(1e-4, 1 - 1e-4).logit()
        images = torch.stack((named["contrast"], 0.3 * logit, 10 * named["micrograph"], 2 * total, 2 * aside), 1)
        features = (self.kept[1].float(), F.avg_pool2d(self.kept[0].float(), 2), F.avg_pool2d(images, COARSE))
        return torch.stack((named["contrast"], logit, named["micrograph"]), 1), torch.cat(features, 1)


def told(coarse: Tensor, transfer: bool) -> Tensor:
    """Bounded, since deep frost gives values that no field of particles has; without the transfer function's part where it is not told."""
    coarse = BOUND * torch.tanh(coarse / BOUND)
    return coarse if transfer else coarse[:, :-1]


def corrected(start: Tensor, change: Tensor) -> Tensor:
    """Contrast and logit [batch, 2, y, x] on the fine grid, or on the coarse one."""
    if start.shape[-1] != change.shape[-1]:
        change = F.interpolate(change, size=start.shape[-2:], mode="bilinear", align_corners=False)
    return start[:, :2] + change


class Field:
    """A real field, as enhancement prepares it, with the trunk's outputs; computed once and kept in a file."""

    def __init__(self, path: Path, picks: Path, diameter: float, pixel: float | None, trunk: Trunk, cache: Path):
        self.name, self.diameter = path.stem, diameter
        self.centres = np.loadtxt(picks, delimiter=",", skiprows=1)[:, ::-1]
        image, header = read_mrc_image(path)
        self.raw, self.pixel = image, pixel or header
        self.file = cache / f"{path.parent.name}_{path.stem}.pt"
        if not self.file.exists():
            torch.save(self._computed(trunk), self.file)

    def _computed(self, trunk: Trunk) -> dict:
        raw = torch.from_numpy(self.raw)
        pixel = self.pixel
        if pixel < 2.0:
            shape = tuple(2 * round(n * pixel / 2.0 / 2) for n in raw.shape)
            raw, pixel = resample(raw - raw.mean(), shape), 2.0
        dark = dark_mask(raw, pixel)
        if dark is not None:
            raw = replaced(raw[None], dark, pixel)[0]
        band = noise_band(raw, pixel)
        frames = raw[None]
        if not band.plain:
            frames, pixel = whitened(frames, pixel, band, 2.0), 2.0
        frames, total, _, _ = normalised(frames, self.name)
        fit = fit_thon_rings(total, pixel, None if band.plain else 0.93 * band.edge_per_angstrom)
        aside = torch.zeros_like(total)
        if fit is not None:
            whole = (2 * total.shape[0], 2 * total.shape[1])
            aside = torch.fft.irfft2(torch.fft.rfft2(reflected(total)) * torch.sin(fit.phase(whole, pixel)), s=whole)
            aside = aside[: total.shape[0], : total.shape[1]]
        stride = trunk.network.stride
        rows, columns = ((-n) % stride for n in total.shape)

        def padded(x: Tensor) -> Tensor:
            return F.pad(x[None], (0, columns, 0, rows), mode="reflect")

        out, coarse = trunk(padded(frames), padded(total[None])[0], exposure_features(None, None, 1)[None], padded(aside[None])[0])
        return {"out": out.half(), "coarse": coarse.half(), "shape": tuple(total.shape), "rings": fit is not None, "pixel": pixel}

    def scores(self, heads: dict[str, nn.Module], precision) -> dict[str, float]:
        kept = torch.load(self.file)
        out, coarse, (height, width) = kept["out"].float(), kept["coarse"].float(), kept["shape"]

        def score(image: Tensor) -> float:
            image = resample(image[:height, :width], self.raw.shape).double().numpy()
            return round(float(precision(image, self.centres, self.diameter / self.pixel)), 3)

        first = self.file.with_suffix(".json")
        if not first.exists():
            contrast, particles = out[0, 0], out[0, 1].sigmoid()
            at_start = {
                "raw": round(float(precision(self.raw.astype(float), self.centres, self.diameter / self.pixel)), 3),
                "start contrast": score(filled(contrast, particles, kept["pixel"])),
                "start particles": score(-particles),
            }
            first.write_text(json.dumps(at_start))
        found = json.loads(first.read_text())
        for name, head in heads.items():
            with torch.no_grad(), autocast(CPU):
                change = head(told(coarse, HEADS[name][1]))
            contrast, logit = corrected(out, change)[0]
            found |= {f"{name} contrast": score(contrast), f"{name} particles": score(-logit.sigmoid())}
        return found


def read_mrc_image(path: Path) -> tuple[np.ndarray, float]:
    import mrcfile

    with mrcfile.open(path) as file:
        return np.squeeze(file.data).astype(np.float32), float(file.voxel_size.x)


def real_fields(real: Path, trunk: Trunk, cache: Path, kept_apart: bool) -> dict[str, list[Field]]:
    """Of each specimen every other field (the first, third, ... to choose by), by name."""
    cache.mkdir(exist_ok=True)
    sets: dict[str, list[Field]] = {}
    for specimen in ("apoferritin", "beta_galactosidase", "ribosome", "trpv1"):
        folder = real / specimen
        average = specimen == "apoferritin"
        diameter = 122.0 if average else json.loads((folder / "set.json").read_text())["diameter_angstrom"]
        for picks in sorted(folder.glob("*_picks.csv"))[int(kept_apart) :: 2]:
            name = picks.name.removesuffix("_picks.csv") + ("_average" if average else "")
            sets.setdefault(specimen, []).append(Field(folder / f"{name}.mrc", picks, diameter, 1.5 if average else None, trunk, cache))
    return sets


def judged(sets: dict[str, list[Field]], heads: dict[str, nn.Module], precision) -> dict[str, dict[str, float]]:
    means = {}
    for specimen, fields in sets.items():
        rows = [field.scores(heads, precision) for field in fields]
        means[specimen] = {k: round(float(np.mean([row[k] for row in rows])), 4) for k in rows[0]}
        means[specimen] |= {f"{k} >= raw": sum(row[k] >= row["raw"] for row in rows) for k in rows[0] if k != "raw"}
        means[specimen]["fields"] = len(rows)
    return means


class Trial:
    def __init__(self, arguments: argparse.Namespace):
        self.folder: Path = arguments.run
        self.folder.mkdir(parents=True, exist_ok=True)
        self.until = utc_today(arguments.until)
        self.trunk = Trunk()
        banks = self.folder / "banks.pt"
        if not banks.exists():
            files = sorted(p for p in arguments.structures.iterdir() if p.suffix in (".pdb", ".cif", ".gz"))
            made = prepare(
                files,
                HELD_OUT,
                phantoms=24,
                poses=32,
                pixel_size_angstrom=2.0,
                seed=SEED,
                widest_angstrom=2.0 * STREAM.crop,
                report=lambda line: self.log({"bank": line}),
                variants=True,
            )
            torch.save(made, banks)
        species, held, _ = torch.load(banks, weights_only=False)
        self.data = Batches(STREAM, species, [], batch=BATCH, seed=SEED)
        full = STREAM.model_copy(update={"empty": 0.0})
        self.held_out = Batches(full, held, [], batch=2, seed=SEED + 1)
        spec = importlib.util.spec_from_file_location("picking_scores", arguments.tools / "picking_scores.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.precision, self.real = module.average_precision, arguments.real
        torch.manual_seed(SEED)
        channels = 80 + 48 + 5
        self.heads = nn.ModuleDict({n: Head(channels - (not transfer), wide) for n, (wide, transfer) in HEADS.items()})
        self.average = {k: v.clone() for k, v in self.heads.state_dict().items()}
        self.optimizer = torch.optim.AdamW(self.heads.parameters(), lr=RATE, weight_decay=1e-4)
        self.step, self.seconds = 0, 0.0
        if (self.folder / "checkpoint.pt").exists():
            kept = torch.load(self.folder / "checkpoint.pt")
            self.heads.load_state_dict(kept["heads"])
            self.optimizer.load_state_dict(kept["optimizer"])
            self.average, self.step, self.seconds = kept["average"], kept["step"], kept["seconds"]
        self.validation = None

    def log(self, record: dict) -> None:
        record = {"at": datetime.now(UTC).strftime("%H:%M:%S")} | record
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")

    def save(self) -> None:
        kept = {"heads": self.heads.state_dict(), "optimizer": self.optimizer.state_dict(), "average": self.average}
        kept |= {"step": self.step, "seconds": self.seconds}
        torch.save(kept, self.folder / "checkpoint.tmp")
        (self.folder / "checkpoint.tmp").rename(self.folder / "checkpoint.pt")

    def shown(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Coarse start, coarse inputs, coarse contrast and particles of the truth."""
        frames, total, exposure, _, contrast, particles, _, _ = batch
        out, coarse = self.trunk(frames[:, :-1].contiguous(), total, exposure, frames[:, -1])
        return F.avg_pool2d(out, COARSE), coarse, F.avg_pool2d(contrast[:, None], COARSE), F.avg_pool2d(particles[:, None], COARSE)

    def averaged(self) -> nn.ModuleDict:
        heads = nn.ModuleDict({n: Head(80 + 53 - (not transfer), wide) for n, (wide, transfer) in HEADS.items()})
        heads.load_state_dict(self.average)
        return heads.eval()

    def judge(self, kept_apart: bool = False) -> None:
        heads = self.averaged()
        if self.validation is None:
            self.validation = [tuple(x.half() for x in self.shown(self.held_out[i])) for i in range(VALIDATED)]
        residuals: dict[str, list[tuple[float, float]]] = {}
        for kept in self.validation:
            start, coarse, contrast, particles = (x.float() for x in kept)
            images = {"start": start[:, :2]}
            for name, head in heads.items():
                with torch.no_grad(), autocast(CPU):
                    images[name] = corrected(start, head(told(coarse, HEADS[name][1])))
            for name, both in images.items():
                pairs = ((both[:, 0], contrast[:, 0]), (both[:, 1].sigmoid(), particles[:, 0]))
                for a, b in zip(*(residual(x, t) for x, t in pairs), strict=True):
                    residuals.setdefault(name, []).append((a, b))
        held = {k: [round(float(np.nanmean([p[i] for p in v])), 4) for i in (0, 1)] for k, v in residuals.items()}
        sets = real_fields(self.real, self.trunk, self.folder.parent / "cache", kept_apart)
        found = judged(sets, heads, self.precision)
        which = "fields kept apart" if kept_apart else "fields to choose by"
        self.log({"step": self.step, "held-out residual (contrast, particles)": held, which: found})

    def train(self) -> None:
        began = time.time() - self.seconds
        losses: dict[str, list[float]] = {n: [] for n in HEADS}
        first = time.time()
        while (now := time.time()) < self.until:
            part = (now - first) / (self.until - first)
            rate = RATE * min(1.0, (self.step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * part))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            start, coarse, contrast, particles = self.shown(self.data[self.step])
            self.optimizer.zero_grad(set_to_none=True)
            for name, head in self.heads.items():
                with autocast(CPU):
                    change = head(told(coarse, HEADS[name][1]))
                both = corrected(start, change)
                loss = image_loss(
                    both[:, :1], contrast, 0.02, kind="squared_ratio", ring_weight=1.0, rings=24, focal_weight=0.0
                ) + 2 * F.binary_cross_entropy_with_logits(both[:, 1:], particles)
                loss.backward()
                nn.utils.clip_grad_norm_(head.parameters(), 1.0)  # each of its own: the three do not share a clip
                losses[name].append(float(loss.detach()))
            self.optimizer.step()
            self.step += 1
            decay = min(AVERAGE, self.step / (self.step + 10))
            for key, value in self.heads.state_dict().items():
                self.average[key].lerp_(value, 1 - decay)
            self.seconds = time.time() - began
            if self.step % LOG_EVERY == 0:
                means = {n: round(sum(v) / len(v), 4) for n, v in losses.items()}
                self.log({"step": self.step, "seconds": round(self.seconds), "cpu_seconds": round(time.process_time()), "rate": round(rate, 6), "loss": means})
                losses = {n: [] for n in HEADS}
                self.save()
        self.save()
        self.log({"done": self.step, "cpu_seconds": round(time.process_time())})


def residual(image: Tensor, truth: Tensor) -> list[float]:
    """1 - r^2 of each of a batch; NaN where the truth is empty."""
    a, b = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (image, truth))
    r = (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()
    return (1 - r.square()).tolist()


def utc_today(clock: str) -> float:
    hour, minute = map(int, clock.split(":"))
    return datetime.now(UTC).replace(hour=hour, minute=minute, second=0).timestamp()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("run", "structures", "real", "tools"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--until", default="19:00")
    parser.add_argument("--judge", choices=("chosen", "kept"))
    torch.set_num_threads(1)
    arguments = parser.parse_args()
    trial = Trial(arguments)
    if arguments.judge:
        trial.judge(kept_apart=arguments.judge == "kept")
    else:
        trial.train()


if __name__ == "__main__":
    main()
