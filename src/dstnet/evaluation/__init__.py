"""Methods scored side by side, by a truth, by what people marked, or by neither."""

from dstnet.evaluation.methods import make_candidates
from dstnet.evaluation.run import Evaluation, MovieOutcome, evaluate
from dstnet.evaluation.settings import EvaluationSettings
from dstnet.evaluation.subjects import SubjectOptions, find_subjects

__all__ = [
    "Evaluation",
    "EvaluationSettings",
    "MovieOutcome",
    "SubjectOptions",
    "evaluate",
    "find_subjects",
    "make_candidates",
]
