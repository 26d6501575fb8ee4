"""The table of methods under evaluation besides those of `dstnet.enhancement.registry`: a new one
is a row here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dstnet.enhancement.registry import METHODS as OWN_METHODS
from dstnet.errors import SettingsError, WeightsError
from dstnet.evaluation.adapted import ENDING as ADAPTED
from dstnet.evaluation.adapted import adapted_candidate
from dstnet.evaluation.base import Candidate, Subject
from dstnet.evaluation.external import external_candidate
from dstnet.evaluation.janni import JanniCandidate, read_janni_weights
from dstnet.evaluation.plain_methods import (
    FunctionCandidate,
    RegistryCandidate,
    best_gaussian_sum,
    block_matched,
    import_bm3d,
    raw_sum,
    true_motion_sum,
    true_wiener,
)
from dstnet.evaluation.processes import find_program
from dstnet.evaluation.relion import USUAL_NAME as RELION
from dstnet.evaluation.relion import RelionCandidate
from dstnet.evaluation.settings import EvaluationSettings
from dstnet.evaluation.sources import Source
from dstnet.evaluation.topaz import USUAL_NAME as TOPAZ
from dstnet.evaluation.topaz import TopazCandidate
from dstnet.network.weights import no_such_model, released
from dstnet.training.finetune import FinetuneSettings

Make = Callable[[str, EvaluationSettings], Candidate]


@dataclass(frozen=True)
class Row:
    """A method.

    Attributes
    ----------
    help
        What it gives, in a line.
    make
        Makes it from its name and the settings.
    is_default
        Whether it is taken where no methods are named.
    """

    help: str
    make: Make
    is_default: Callable[[EvaluationSettings], bool] = lambda settings: False


def _always(settings: EvaluationSettings) -> bool:
    return True


def _with_relion(settings: EvaluationSettings) -> bool:
    return settings.relion is not None


def _with_topaz(settings: EvaluationSettings) -> bool:
    return settings.topaz is not None


def _with_janni(settings: EvaluationSettings) -> bool:
    return settings.janni is not None


def _function(function: Callable, needs_truth: bool = False) -> Make:
    return lambda name, settings: FunctionCandidate(name, function, needs_truth)


def _relion_program(settings: EvaluationSettings) -> str:
    return find_program(settings.relion, RELION, "--relion")


def _relion(name: str, settings: EvaluationSettings) -> Candidate:
    program = _relion_program(settings)
    return RelionCandidate(name, program, name == "relion", settings.program_seconds)


def _source(name: str, settings: EvaluationSettings) -> Source:
    if not name.startswith("relion+"):
        return Source()
    return Source(_relion_program(settings), settings.program_seconds)


def _topaz(name: str, settings: EvaluationSettings) -> Candidate:
    program = find_program(settings.topaz, TOPAZ, "--topaz")
    source = _source(name, settings)
    seconds = settings.program_seconds
    return TopazCandidate(name, program, source, seconds, settings.topaz_options)


def _janni(name: str, settings: EvaluationSettings) -> Candidate:
    if settings.janni is None:
        raise SettingsError(f"{name} needs JANNI's published weights; give their file with --janni")
    read_janni_weights(settings.janni)  # else every movie would fail by the same reason
    return JanniCandidate(name, settings.janni, _source(name, settings))


def _bm3d(name: str, settings: EvaluationSettings) -> Candidate:
    import_bm3d()  # else every movie would fail by the same reason
    return FunctionCandidate(name, block_matched, package="bm3d")


METHODS: dict[str, Row] = {
    "raw-sum": Row("the frames added as they are", _function(raw_sum), _always),
    "true-motion-sum": Row(
        "told the truth: the sum by the true motion", _function(true_motion_sum, True), _always
    ),
    "best-gaussian": Row(
        "told the truth: the dose-weighted sum through the best Gaussian",
        _function(best_gaussian_sum, True),
        _always,
    ),
    "true-wiener": Row(
        "told the truth: the dose-weighted sum through the best filter of rings",
        _function(true_wiener, True),
        _always,
    ),
    "bm3d": Row(
        "the dose-weighted sum through BM3D; package bm3d, for non-commercial use only",
        _bm3d,
    ),
    "relion": Row("RELION's motion correction, dose-weighted", _relion, _with_relion),
    "relion-sum": Row("RELION's motion correction, the plain sum", _relion),
    "topaz": Row("Topaz-Denoise of the dose-weighted sum", _topaz, _with_topaz),
    "relion+topaz": Row(
        "RELION's motion correction, then Topaz-Denoise",
        _topaz,
        lambda settings: _with_relion(settings) and _with_topaz(settings),
    ),
    "janni": Row("JANNI's general model on the dose-weighted sum", _janni, _with_janni),
    "relion+janni": Row("RELION's motion correction, then JANNI's general model", _janni),
}


def default_methods(settings: EvaluationSettings) -> tuple[str, ...]:
    """Names of the methods that are taken where none are named: all that need nothing installed,
    and what the settings give a program or a file for.
    """
    first = ("raw-sum", "sum", "dose-weighted-sum", "gaussian:20", "wiener", *released())
    rest = (name for name, row in METHODS.items() if row.is_default(settings))
    return tuple(dict.fromkeys((*first, *rest)))


def make_candidates(
    settings: EvaluationSettings,
    subjects: Sequence[Subject] = (),
    folder: Callable[[], Path] | None = None,
    *,
    device: str = "cpu",
    say: Callable[[str], None] = lambda line: None,
) -> list[Candidate]:
    """The methods that the settings name, and results of other programs.

    Parameters
    ----------
    settings
        Of the evaluation.
    subjects, folder
        What is evaluated, and what makes the folder for weights that are adapted to it: last, once
        all else was found to be there.
    device
        Where weights are adapted; all else works where a scene lies.
    say
        Gets remarks on the adapting.

    Raises
    ------
    SettingsError
        If there is no such method, a name is given twice, or what a method needs is not there.
    WeightsError
        If weights cannot be used.
    OutputError
        If `folder` cannot be written.
    """
    names = settings.methods or default_methods(settings)
    externals = [external_candidate(name, place) for name, place in settings.external.items()]
    made: dict[str, Candidate] = {}
    # Those to be adapted, which may take long, once all others are known to be there.
    for name in sorted(dict.fromkeys(names), key=lambda name: name.endswith(ADAPTED)):
        if name in settings.external:
            continue
        if name.endswith(ADAPTED):
            made[name] = _adapted(name, settings, subjects, folder, device, say)
        elif name in METHODS:
            made[name] = METHODS[name].make(name, settings)
        else:
            made[name] = _of_registry(name)
    for external in externals:
        if external.name in METHODS or external.name in OWN_METHODS or external.name in released():
            raise SettingsError(
                f"--external {external.name}: a method is called so; give it another name"
            )
    made |= {external.name: external for external in externals}
    return [made[name] for name in dict.fromkeys((*names, *settings.external))]


def _of_registry(name: str) -> Candidate:
    candidate = RegistryCandidate(name, name)
    try:
        candidate.describe()  # else every movie would fail by the same reason
    except WeightsError:
        if Path(name).is_file():
            raise
        raise SettingsError(no_such_model(name, (*OWN_METHODS, *METHODS))) from None
    return candidate


def _adapted(
    name: str,
    settings: EvaluationSettings,
    subjects: Sequence[Subject],
    folder: Callable[[], Path] | None,
    device: str,
    say: Callable[[str], None],
) -> Candidate:
    if folder is None:
        raise SettingsError(f"{name}: no folder is given for weights that are adapted")
    finetuning = FinetuneSettings(alignment=settings.alignment, seed=settings.seed)
    place = folder() / "adapted" / name.replace("/", "_").replace("\\", "_")
    return adapted_candidate(name, subjects, place, finetuning, device=device, say=say)
