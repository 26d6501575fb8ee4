"""Fine-tuning on the user's own movies, which have no truth: what one part of the frames shows must
predict the other part (`dstnet.training.objectives.NoiseToNoise`).

What is learnt so is whatever the frames share: a camera's fixed pattern too, if it was not
corrected. Everything is judged on crops kept apart, of other movies where there are several.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dstnet.core.devices import Device
from dstnet.core.fourier import ring_count
from dstnet.core.randomness import stream
from dstnet.network.blocks import MovieNetwork
from dstnet.network.weights import ModelCard, build
from dstnet.training.averaging import copy_weights, update_average
from dstnet.training.batch import NoisyPair
from dstnet.training.finetune.crops import MovieCrops
from dstnet.training.finetune.held_out_score import RINGS, HeldOutScore, score
from dstnet.training.finetune.pairs import sample_example
from dstnet.training.finetune.records import GainRecord
from dstnet.training.finetune.settings import FinetuneSettings
from dstnet.training.objectives import NoiseToNoise, Objective, rings_with_corners

# Beyond it lie illumination and ice gradients: frames share them, and an enhanced micrograph is not
# to show them.
COARSEST_ANGSTROM = 500.0
# The ring correlation is averaged between these: where single particles have their detail.
RING_BAND_ANGSTROM = 150.0, 25.0
_STANDS_OUT = 1.5  # times the start's ratio of the energy at a pattern's points to that beside


@dataclass(frozen=True)
class Outcome:
    """What came of a fine-tuning.

    Attributes
    ----------
    network
        The fine-tuned network; None where nothing was gained.
    record
        What it gained; None with it.
    records
        Of all weights that were judged, the starting ones first.
    why
        Why the run ended, and where there is no network, why not.
    """

    network: MovieNetwork | None
    record: GainRecord | None
    records: list[GainRecord]
    why: str


@dataclass
class _Training:
    """What changes while a run trains: the network, its optimiser, the averaged weights."""

    network: MovieNetwork
    learnt: list[nn.Parameter]
    optimizer: torch.optim.AdamW
    average: dict[str, Tensor]


class Finetuning:
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
        settings: FinetuneSettings,
        device: Device = "cpu",
    ):
        self.learn = learn
        self.judge = judge
        self.card = card
        self.settings = settings
        self.device = torch.device(device)
        self.start = self._network_with(network.state_dict())
        nyquist = 0.5 / card.working_pixel_angstrom
        frequency = (torch.arange(RINGS) + 0.5) / RINGS * nyquist
        coarsest, finest = RING_BAND_ANGSTROM
        self.band = (frequency > 1 / coarsest) & (frequency < 1 / finest)
        self.weight = self._ring_weight(frequency)
        self.before = self.scored(self.start, judge)
        self.objective: Objective[NoisyPair] = NoiseToNoise(
            self.weight, self.start, settings.anchor
        )

    def _ring_weight(self, frequency: Tensor) -> Tensor:
        """What each ring counts: by the power that the starting weights' output has there."""
        found = self.scored(self.start, self.learn)
        power = found.sums[:, 1].mean((0, 1))  # a crop's, by ring
        side = self.learn[0].images.shape[-1]
        terms = ring_count(rings_with_corners(side, RINGS), RINGS)
        density = power / terms.clamp(min=1)
        floor = 1e-3 * density.max()
        whitened = (density + floor).pow(-self.settings.whitening)
        weight = whitened * (frequency > 1 / COARSEST_ANGSTROM)
        total = (weight * power).sum()
        return (weight / total).float()

    def _network_with(self, weights: Mapping[str, Tensor]) -> MovieNetwork:
        network = build(self.card.architecture, self.card.architecture_settings)
        network.load_state_dict(weights)
        return network.to(self.device).eval()

    def scored(self, network: MovieNetwork, movies: Sequence[MovieCrops]) -> HeldOutScore:
        """How well weights predict the other half of all crops of `movies`."""
        return score(network, movies, self.card.groups, self.device)

    def train(self, report: Callable[[GainRecord], None] = lambda record: None) -> Outcome:
        """Run until nothing is gained any more; `report` gets each record.

        The outcome's network is the best before any checkerboard, if it is surely better than the
        start.
        """
        settings = self.settings
        training = self._begin()
        records = [self._compared(0, self.before)]
        report(records[0])
        best = None
        best_record = records[0]
        why = f"all {settings.steps} steps are done"
        for step in range(1, settings.steps + 1):
            loss = self._step(training, step)
            if not math.isfinite(loss):
                why = f"the loss became {loss} at step {step}: lower learning_rate"
                break
            if step % settings.check_every and step != settings.steps:
                continue
            # As they would be released: in half precision.
            released = {name: v.half().float() for name, v in training.average.items()}
            candidate = self._network_with(released)
            found = self.scored(candidate, self.judge)
            record = self._compared(step, found)
            records.append(record)
            report(record)
            if pattern := self._checkerboard_energy(found):
                why = (
                    f"a checkerboard began to show at step {step}, with {pattern:.2%} of the"
                    " output's energy"
                )
                break
            if record.gain > best_record.gain and record.harm == 0:
                best, best_record = candidate, record
            elif step - best_record.step >= settings.patience * settings.check_every:
                why = f"nothing was gained after step {best_record.step}"
                break
        return self._outcome(best, best_record, records, why)

    def _begin(self) -> _Training:
        network = self._network_with(self.start.state_dict()).train()
        frozen = self.settings.frozen_of(network)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(not name.startswith(frozen))
        learnt = [p for p in network.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(learnt, lr=self.settings.learning_rate, weight_decay=0.0)
        return _Training(network, learnt, optimizer, copy_weights(network))

    def _step(self, training: _Training, step: int) -> float:
        """One step, from 1 on, and its loss; where that is no number, the weights stay."""
        settings = self.settings
        rise = min(1.0, step / max(1, settings.warm_up))
        for group in training.optimizer.param_groups:
            group["lr"] = settings.learning_rate * rise
        generator = stream(settings.seed, "step", step)
        training.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for _ in range(settings.batch):
            pair = sample_example(self.learn, self.card.groups, generator).to(self.device)
            loss = self.objective(training.network, pair) / settings.batch
            loss.backward()
            total += float(loss.detach())
        if not math.isfinite(total):
            return total
        nn.utils.clip_grad_norm_(training.learnt, settings.clip)
        training.optimizer.step()
        update_average(training.average, training.network, step=step, decay=settings.average)
        return total

    def _checkerboard_energy(self, found: HeldOutScore) -> float:
        """What more of the output's energy a checkerboard takes than at the start, where it shows;
        else 0.
        """
        ratio, share = found.checkerboard
        ratio_before, share_before = self.before.checkerboard
        grown = share - share_before
        # Where there is next to no energy, ratios alone mean nothing; where particles have theirs,
        # shares alone do not.
        stands_out = ratio > _STANDS_OUT * ratio_before
        shows = stands_out & (grown > self.settings.checkerboard)
        if not bool(shows.any()):
            return 0.0
        return float(grown.max())

    def _outcome(
        self,
        best: MovieNetwork | None,
        record: GainRecord,
        records: list[GainRecord],
        why: str,
    ) -> Outcome:
        certainty = self.settings.certainty
        if best is None:
            why = (
                f"{why}; no weights on the way predicted the held-out frames better than the"
                " starting ones"
            )
            return Outcome(None, None, records, why)
        if record.gain < certainty * record.gain_error:
            why = (
                f"{why}; the best gain, {record.gain:.2%}, is below {certainty:g} standard errors"
                f" of {record.gain_error:.2%}"
            )
            return Outcome(None, None, records, why)
        return Outcome(best, record, records, why)

    def _compared(self, step: int, found: HeldOutScore) -> GainRecord:
        """A score relative to the start's, on the same crops, so that the crops' own noise hardly
        counts. An error is no excuse for harm.
        """
        gain = self._gains(found)
        left_out = [self._gains(found, without=i)[0].mean() for i in range(found.crops)]
        ratio, share = found.checkerboard
        return GainRecord(
            step=step,
            gain=float(gain[0].mean()),
            gain_error=_jackknife_error(torch.stack(left_out)),
            harm=max(0.0, -float(gain.min())),
            agreement=_rounded(found.agreement(self.weight), 5),
            ring_correlation=_rounded(found.ring_correlation(self.band), 5),
            checkerboard_ratio=_rounded(ratio, 3),
            checkerboard_share=_rounded(share, 6),
        )

    def _gains(self, found: HeldOutScore, without: int | None = None) -> Tensor:
        """[measure, direction]: of agreement and ring correlation, relative to the start's."""
        before = self._measures(self.before, without)
        now = self._measures(found, without)
        return (now - before) / before.abs().clamp(min=1e-3)

    def _measures(self, found: HeldOutScore, without: int | None) -> Tensor:
        agreement = found.agreement(self.weight, without)
        return torch.stack((agreement, found.ring_correlation(self.band, without)))


def _jackknife_error(left_out: Tensor) -> float:
    """Standard error of a mean from the values that leave out one crop at a time, [crop]
    (Quenouille 1956).
    """
    crops = len(left_out)
    spread = (left_out - left_out.mean(0)).square().sum(0)
    return float(((crops - 1) / crops * spread).sqrt())


def _rounded(values: Tensor, digits: int) -> tuple[float, ...]:
    return tuple(round(value, digits) for value in values.tolist())
