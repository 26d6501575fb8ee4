"""Fine-tuning on the user's own movies, which have no truth: what one part of the frames shows must
predict the other part.

Noise-to-noise (Lehtinen et al. 2018): frames that the input does not hold share its signal and not
its noise, so the squared distance to them has its least expectation at the best estimate of the
signal. What is learnt so is whatever the frames share: a camera's fixed pattern too, if it was not
corrected. Everything is judged on crops kept apart, of other movies where there are several.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from dstnet import __version__
from dstnet.core.fourier import ring_index
from dstnet.core.randomness import stream
from dstnet.errors import BadInputError, DstnetError, OutputError, SettingsError
from dstnet.io import atomic_path, ensure_writable_folder
from dstnet.movie import Movie
from dstnet.network.blocks import MovieNetwork
from dstnet.network.engine import autocast
from dstnet.network.weights import ModelCard, build, load_weights, save_weights
from dstnet.training.finetune.crops import Example, MovieCrops, cut, drawn, example, halves, split
from dstnet.training.settings import AdaptSettings

# Beyond it lie illumination and ice gradients: frames share them, and an enhanced micrograph is not
# to show them.
COARSEST_ANGSTROM = 500.0
# The ring correlation is averaged between these: where single particles have their detail.
RING_BAND_ANGSTROM = 150.0, 25.0
RINGS = 120
# What counts as at a point of the spectrum, and beside it, in lines of a crop's spectrum; what lies
# between is neither.
_LINES_AT, _LINES_BESIDE = 2, 7
_STANDS_OUT = 1.5  # times the start's ratio of one to the other


def checkerboard(images: Tensor, stride: int) -> Tensor:
    """How much of images' energy lies at multiples of 1/2, 1/4, ... 1/`stride` cycles per pixel,
    against that beside them.

    A sub-pixel shuffle or an up-sampling whose phases differ leaves a pattern of its period, and
    copies of the image's own low frequencies about the pattern's.

    Parameters
    ----------
    images
        [image, y, x], square, of 32 pixels a side or more; each counts alike.
    stride
        The longest period, a power of two.

    Returns
    -------
    Tensor
        [2, period], for 2, 4, ... `stride`, or up to a sixteenth of the side: the points of longer
        ones are too close for anything to lie beside. First the mean energy at the points over that
        beside, about 1 for a smooth spectrum; then what is more at the points, as a share of all
        energy.
    """
    side = images.shape[-1]
    # Without a window the borders' jumps would lie on the axes, where some of the points are.
    window = torch.hann_window(side)[:, None] * torch.hann_window(side)[None, :]
    power = torch.fft.fft2((images - images.mean((-2, -1), keepdim=True)) * window).abs().square()
    power = (power / power.sum((-2, -1), keepdim=True).clamp(min=1e-30)).mean(0)
    axis = torch.arange(side)

    def energies(y: float, x: float) -> tuple[float, float]:
        away_y, away_x = (((axis - p * side + side / 2) % side - side / 2).abs() for p in (y, x))
        away = torch.maximum(away_y[:, None], away_x[None, :])
        at, beside = away <= _LINES_AT, (away > 2 * _LINES_AT) & (away <= _LINES_BESIDE)
        expected = float(power[beside].mean()) * int(at.sum())
        return float(power[at].sum()), expected

    found, period, seen = [], 2, {(0.0, 0.0)}
    while period <= min(stride, side // 16):
        points = {(i / period, j / period) for i in range(period) for j in range(period)} - seen
        seen |= points
        at, beside = (
            sum(values) for values in zip(*(energies(y, x) for y, x in sorted(points)), strict=True)
        )
        found.append((at / max(beside, 1e-30), at - beside))
        period *= 2
    return torch.tensor(found).T


@dataclass(frozen=True)
class HeldOutScore:
    """How well the enhanced image of one part of the held-out frames predicts the other part.

    Attributes
    ----------
    sums
        [direction, term, crop, ring]: of Re(a b*), |a|^2 and |b|^2, a the spectrum of what is
        predicted and b that of the other part.
    checkerboard
        [2, period]: see there.
    """

    sums: Tensor
    checkerboard: Tensor

    def agreement(self, weight: Tensor, without: int | None = None) -> Tensor:
        """[direction]: correlation with the other part, rings weighted; that is noise-to-noise
        distance at the best scale.

        A change of contrast alone is no gain, so the scale is left out of it. `without` leaves a
        crop out.
        """
        cross, own, other = self._kept(without) @ weight.double()
        return cross / (own * other).clamp(min=1e-30).sqrt()

    def ring_correlation(self, band: Tensor, without: int | None = None) -> Tensor:
        """[direction]: Fourier ring correlation, mean over the rings in `band`; `without` leaves a
        crop out.
        """
        cross, own, other = self._kept(without)[..., band]
        return (cross / (own * other).clamp(min=1e-30).sqrt()).mean(-1)

    def _kept(self, without: int | None) -> Tensor:
        """[term, direction, ring]: sums over crops."""
        kept = [i for i in range(self.sums.shape[2]) if i != without]
        return self.sums[:, :, kept].sum(2).transpose(0, 1)


@dataclass(frozen=True)
class Outcome:
    """What came of an adaptation.

    Attributes
    ----------
    network
        The adapted network; None where nothing was gained.
    record
        Its judgement; None with it.
    records
        All judgements, the start's first.
    why
        Why the run ended, and where there is no network, why not.
    """

    network: MovieNetwork | None
    record: dict | None
    records: list[dict]
    why: str


class Adaptation:
    """Fine-tuning from one set of weights.

    Parameters
    ----------
    learn, judge
        Crops to learn from and to judge by.
    network, card
        The starting weights; they are left as they are.
    settings
        Of the run.
    device
        Where the network runs.
    """

    def __init__(
        self,
        learn: Sequence[MovieCrops],
        judge: Sequence[MovieCrops],
        network: MovieNetwork,
        card: ModelCard,
        settings: AdaptSettings,
        device: torch.device | str = "cpu",
    ):
        self.learn, self.judge, self.card, self.settings = learn, judge, card, settings
        self.device = torch.device(device)
        self.start = _with(network.state_dict(), card, self.device)
        k = (torch.arange(RINGS) + 0.5) / RINGS * 0.5 / card.working_pixel_angstrom
        self.band = (k > 1 / RING_BAND_ANGSTROM[0]) & (k < 1 / RING_BAND_ANGSTROM[1])
        power = self.judged(self.start, learn).sums[:, 1].mean((0, 1))  # a crop's, by ring
        terms = torch.bincount(_rings(learn[0].images.shape[-1]).flatten(), minlength=RINGS).clamp(
            min=1
        )
        density = power / terms
        weight = (density + 1e-3 * density.max()).pow(-settings.whitening) * (
            k > 1 / COARSEST_ANGSTROM
        )
        self.weight = (weight / (weight * power).sum()).float()
        self.before = self.judged(self.start, judge)

    def train(self, report: Callable[[dict], None] = lambda record: None) -> Outcome:
        """Run until nothing is gained any more; `report` gets each judgement.

        The outcome's network is that of the best judgement before any checkerboard, if it is surely
        better than the start.
        """
        s = self.settings
        network = _with(self.start.state_dict(), self.card, self.device).train()
        average = {k: v.detach().clone() for k, v in network.state_dict().items()}
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(not name.startswith(s.frozen))
        learnt = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(learnt, lr=s.learning_rate, weight_decay=0.0)
        records = [self._record(0, self.before)]
        report(records[0])
        best, best_record, why = None, records[0], f"all {s.steps} steps are done"
        for step in range(1, s.steps + 1):
            for group in optimizer.param_groups:
                group["lr"] = s.learning_rate * min(1.0, step / max(1, s.warm_up))
            generator = stream(s.seed, "step", step)
            optimizer.zero_grad(set_to_none=True)
            total = 0.0
            for _ in range(s.batch):
                loss = (
                    self._loss(network, drawn(self.learn, self.card.fractions, generator)) / s.batch
                )
                loss.backward()
                total += float(loss.detach())
            if not math.isfinite(total):
                why = f"the loss became {total} at step {step}: lower learning_rate"
                break
            nn.utils.clip_grad_norm_(learnt, s.clip)
            optimizer.step()
            decay = min(s.average, step / (step + 10))
            with torch.no_grad():
                for name, value in network.state_dict().items():
                    average[name].lerp_(value, 1 - decay)
            if step % s.check_every and step != s.steps:
                continue
            # As they would be released: in half precision.
            candidate = _with(
                {k: v.half().float() for k, v in average.items()}, self.card, self.device
            )
            judgement = self.judged(candidate, self.judge)
            records.append(self._record(step, judgement))
            report(records[-1])
            (ratio, share), (ratio_before, share_before) = (
                judgement.checkerboard,
                self.before.checkerboard,
            )
            grown = share - share_before
            # Where there is next to no energy, ratios alone mean nothing; where particles have
            # theirs, shares alone do not.
            if bool(((grown > s.checkerboard) & (ratio > _STANDS_OUT * ratio_before)).any()):
                why = (
                    f"a checkerboard began to show at step {step}, with {float(grown.max()):.2%} of"
                    " the output's energy"
                )
                break
            if records[-1]["gain"] > best_record["gain"] and records[-1]["harm"] == 0:
                best, best_record = candidate, records[-1]
            elif step - best_record["step"] >= s.patience * s.check_every:
                why = f"nothing was gained after step {best_record['step']}"
                break
        if best is None:
            return Outcome(
                None,
                None,
                records,
                f"{why}; no weights on the way predicted the held-out frames better than the"
                " starting ones",
            )
        if best_record["gain"] < s.certainty * best_record["gain_error"]:
            gain, error = best_record["gain"], best_record["gain_error"]
            return Outcome(
                None,
                None,
                records,
                f"{why}; the best gain, {gain:.2%}, is below {s.certainty:g} standard errors of"
                f" {error:.2%}",
            )
        return Outcome(best, best_record, records, why)

    def judged(self, network: MovieNetwork, movies: Sequence[MovieCrops]) -> HeldOutScore:
        """Judge weights on all crops of `movies`: halves of the groups, either predicting the
        other.
        """
        sums, outputs = [], []
        for direction in (0, 1):
            for movie in movies:
                for crop in range(len(movie.images)):
                    shown = example(movie, crop, halves(movie)[direction], self.card.fractions)
                    with torch.no_grad():
                        output = self._run(network, shown)[0, 0].cpu()
                    outputs.append(output)
                    sums.append(_ring_sums(output * shown.ratio, shown.target))
        smallest = min(o.shape[-1] for o in outputs)
        pattern = checkerboard(
            torch.stack([o[:smallest, :smallest] for o in outputs]), self.start.stride
        )
        return HeldOutScore(torch.stack(sums).unflatten(0, (2, -1)).transpose(1, 2), pattern)

    def _record(self, step: int, judgement: HeldOutScore) -> dict:
        """What is logged of a judgement: gains relative to the start, on the same crops, so that
        the crops' own noise hardly counts.

        "harm" is by how much the worst of either measure in either direction is lower than at the
        start; the error is no excuse.
        """

        def measures(judged: HeldOutScore, without: int | None) -> Tensor:
            """[measure, direction]."""
            return torch.stack(
                (
                    judged.agreement(self.weight, without),
                    judged.ring_correlation(self.band, without),
                )
            )

        def gains(without: int | None = None) -> Tensor:
            before = measures(self.before, without)
            return (measures(judgement, without) - before) / before.abs().clamp(min=1e-3)

        def error(left_out: Tensor) -> Tensor:
            """Jackknife over crops (Quenouille 1956)."""
            return ((crops - 1) / crops * (left_out - left_out.mean(0)).square().sum(0)).sqrt()

        crops, gain = judgement.sums.shape[2], gains()
        without = torch.stack([gains(i) for i in range(crops)])
        return {
            "step": step,
            "gain": float(gain[0].mean()),
            "gain_error": float(error(without[:, 0].mean(1))),
            "harm": max(0.0, -float(gain.min())),
            "agreement": [round(v, 5) for v in judgement.agreement(self.weight).tolist()],
            "ring_correlation": [
                round(v, 5) for v in judgement.ring_correlation(self.band).tolist()
            ],
            "checkerboard_ratio": [round(v, 3) for v in judgement.checkerboard[0].tolist()],
            "checkerboard_share": [round(v, 6) for v in judgement.checkerboard[1].tolist()],
        }

    def _loss(self, network: MovieNetwork, shown: Example) -> Tensor:
        """Weighted squared distance from the other frames, and of all outputs from those of the
        starting weights.
        """
        output = self._run(network, shown)[0]
        side = output.shape[-1]
        spectrum = torch.fft.rfft2(
            output[0] * shown.ratio - shown.target.to(self.device), norm="ortho"
        )
        weight = (self.weight[_rings(side)] * _columns(side)).to(self.device)
        # In units of the target's noise, targets of many frames would drown those of few; in units
        # of contrast, the reverse.
        loss = (weight * spectrum.abs().square()).sum() / shown.ratio
        if not self.settings.anchor:
            return loss
        with torch.no_grad():
            before = self._run(self.start, shown)[0]
        for name, now, then in zip(self.start.outputs, output, before, strict=True):
            if name == "uncertainty":  # positive, over orders of magnitude
                distance = (now.clamp(min=1e-6).log() - then.clamp(min=1e-6).log()).square().mean()
            else:
                distance = (now - then).square().mean() / then.square().mean().clamp(min=1e-8)
            loss = loss + self.settings.anchor * distance
        return loss

    def _run(self, network: MovieNetwork, shown: Example) -> Tensor:
        inputs = (i.to(self.device) for i in (shown.frames, shown.total, shown.exposure))
        with autocast(self.device):
            return network(*inputs).float()


def _with(weights: Mapping[str, Tensor], card: ModelCard, device: torch.device) -> MovieNetwork:
    made = build(card.architecture, card.architecture_settings)
    made.load_state_dict(weights)
    return made.to(device).eval()


@lru_cache(maxsize=8)
def _rings(side: int) -> Tensor:
    """Ring of each term of the ``rfft2`` of a square image; the corners count with the last."""
    return ring_index((side, side), RINGS).clamp(max=RINGS - 1)


@lru_cache(maxsize=8)
def _columns(side: int) -> Tensor:
    """How many terms of the whole plane each column of the half of it stands for; `side` is
    even.
    """
    columns = torch.full((side // 2 + 1,), 2.0)
    columns[0] = columns[-1] = 1.0
    return columns


def _ring_sums(image: Tensor, other: Tensor) -> Tensor:
    """[term, ring]: see `HeldOutScore.sums`."""
    side = image.shape[-1]
    a, b = torch.fft.rfft2(image, norm="ortho"), torch.fft.rfft2(other, norm="ortho")
    terms = torch.stack(((a * b.conj()).real, a.abs().square(), b.abs().square())) * _columns(side)
    return torch.zeros(3, RINGS, dtype=torch.float64).index_add_(
        1, _rings(side).flatten(), terms.double().flatten(1)
    )


def adapt_run(
    folder: Path,
    movies: Mapping[str, Callable[[], Movie]],
    settings: AdaptSettings,
    *,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
    report: Callable[[dict], None] = lambda record: None,
) -> tuple[Path | None, list[str]]:
    """Fine-tune on movies and write the weights with their card into `folder`, if they are better
    than those they started from.

    Parameters
    ----------
    folder
        Gets ``settings.yaml``, ``log.jsonl`` with every judgement, ``outcome.json``, and
        ``weights.safetensors`` with ``weights.json``.
    movies
        What opens each movie, by its name. One that cannot be used is said, and the others go on.
    settings
        Of the run.
    device
        Where the network runs.
    say, report
        Get remarks, and each judgement.

    Returns
    -------
    path, failures
        ``folder/weights.safetensors``, None where nothing was gained and so nothing written; and
        what was wrong with each movie left out.

    Raises
    ------
    BadInputError
        If no movie can be used, or too little to judge by would be left.
    OutputError
        If the folder cannot be written, or holds adapted weights already.
    SettingsError, WeightsError
        If the weights or the device cannot be used, or the network has no layer that `frozen`
        names.
    """
    ensure_writable_folder(folder)
    path = folder / "weights.safetensors"
    if path.exists():
        raise OutputError(f"{folder} already holds weights; choose another folder")
    network, card = load_weights(settings.model)
    try:
        network = network.to(device)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(
            f"device {device!r} cannot be used: {str(error).splitlines()[0]}; use --device cpu"
        ) from None
    layers = [name for name, _ in network.named_parameters()]
    for name in settings.frozen:
        if not any(layer.startswith(name) for layer in layers):
            raise SettingsError(
                f"frozen: {card.name} has no layer {name!r}; its parameters are called {layers[0]}"
                f" to {layers[-1]}"
            )
    if all(layer.startswith(settings.frozen) for layer in layers):
        raise SettingsError(
            f"frozen: {', '.join(settings.frozen)} is all of {card.name}; leave something to learn"
        )
    crops, failures = [], []
    for name, opened in movies.items():
        try:
            crops.append(cut(opened(), card, network.stride, settings, device))
            say(
                f"{name}: {len(crops[-1].images)} crops of {crops[-1].images.shape[-1]} pixels,"
                f" {len(crops[-1].noise)} groups of frames"
            )
        except DstnetError as error:
            failures.append(str(error))
            say(f"failed: {error}")
    if not crops:
        raise BadInputError("no movie is left to learn from; each was named above with its reason")
    learn, judge = split(crops, settings)
    held = {"learnt_from": [m.name for m in learn], "judged_by": [m.name for m in judge]}
    _write(folder / "settings.yaml", settings.to_yaml())
    adaptation = Adaptation(learn, judge, network, card, settings, device)
    log: list[str] = []

    def logged(record: dict) -> None:
        log.append(json.dumps(record) + "\n")
        _write(folder / "log.jsonl", "".join(log))
        report(record)

    outcome = adaptation.train(logged)
    say(f"ended: {outcome.why}")
    told = {
        "adapted_from": {"name": card.name, "sha256": card.sha256},
        "movies": held,
        "ended": outcome.why,
        "version": __version__,
    }
    if outcome.network is None or outcome.record is None:
        _write(
            folder / "outcome.json",
            json.dumps({**told, "released": None, "failures": failures}, indent=2) + "\n",
        )
        return None, failures
    made = card.model_copy(
        update={
            "name": f"{card.name}-{folder.resolve().name}",
            "training": {
                **told,
                "settings": settings.model_dump(mode="json"),
                "steps": outcome.record["step"],
                "before": card.training,
            },
            "scores": {
                "held-out halves, before": outcome.records[0],
                "held-out halves, adapted": outcome.record,
            },
        }
    )
    save_weights(outcome.network, made, path)
    _write(
        folder / "outcome.json",
        json.dumps({**told, "released": outcome.record, "failures": failures}, indent=2) + "\n",
    )
    return path, failures


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text)
