"""dstnet adapt: weights fine-tuned on the user's own movies."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from dstnet.cli.gain import ReferenceOptions
from dstnet.cli.movies import MovieOptions
from dstnet.cli.options import (
    Device,
    Json,
    Movies,
    Output,
    SettingsFile,
    Whole,
    reporting,
    settings_from,
)

if TYPE_CHECKING:
    from dstnet.training.finetune.records import GainRecord


def adapt(
    movies: Movies,
    /,
    *,
    output: Output,
    model: Annotated[
        str | None,
        Parameter(
            name=["--model", "-m"],
            help="Weights to start from (see dstnet models), or a .safetensors file.",
        ),
    ] = None,
    steps: Annotated[
        Whole | None,
        Parameter(
            help="Most optimiser steps; the run ends earlier where nothing is gained any more."
        ),
    ] = None,
    patches: Annotated[
        Whole | None,
        Parameter(help="Most patches a side for local motion; 0: of the whole field only."),
    ] = None,
    seed: Annotated[
        Whole | None, Parameter(help="Of crops, of what is held out, and of the steps.")
    ] = None,
    movie: MovieOptions | None = None,
    references: ReferenceOptions | None = None,
    device: Device = None,
    settings: SettingsFile = None,
    json: Json = False,
) -> int:
    """Fine-tune weights on movies of your own, without any truth.

    What one part of a movie's frames shows must predict the other part. A quarter of the movies is
    only judged by. OUTPUT gets weights.safetensors with its card weights.json, which `dstnet
    enhance --model OUTPUT/weights.safetensors` takes - if they predict the held-out frames surely
    better than the weights they started from; else nothing is written, and the exit code is 1. Also
    settings.yaml, log.jsonl, and outcome.json, which says how it ended.
    """
    from dstnet.cli.movies import camera_references, movie_settings
    from dstnet.movie import Movie
    from dstnet.pipeline import InputMovie, read_inputs
    from dstnet.training.finetune import FinetuneSettings, finetune_run

    chosen = settings_from(FinetuneSettings, settings, model=model, steps=steps, seed=seed)
    if patches is not None:
        alignment = chosen.alignment.model_copy(update={"patches": patches})
        values = {**chosen.model_dump(), "alignment": alignment.model_dump()}
        chosen = FinetuneSettings.checked(values, "options")
    taken = movie_settings(movie)
    camera = camera_references(references)

    camera.corrections(camera.gain, camera.defects)  # what cannot be read is refused once
    said: set[str] = set()

    def opened(source: InputMovie) -> Movie:
        raw = taken.open(source)
        for note in raw.notes:
            if note not in said:
                report.say(f"{source.path}: {note}")
        said.update(raw.notes)
        corrections = camera.corrections(camera.gain_of(source), camera.defects_of(source))
        return raw if corrections is None else corrections.applied(raw)

    with reporting(1 + chosen.steps // chosen.check_every, "adapting", json) as report:
        sources = read_inputs(movies, report=report.say)
        path, failures = finetune_run(
            output,
            {str(source.path): partial(opened, source) for source in sources},
            chosen,
            device=device,
            say=report.say,
            report=lambda record: report(_line(record), record.model_dump(mode="json")),
        )
        if path:
            report.say(f"adapted weights in {path}")
        else:
            report.say(f"nothing was gained, so no weights are written; go on with {chosen.model}")
    return 1 if failures or path is None else 0


def _line(record: "GainRecord") -> str:
    rings = ", ".join(f"{correlation:.4f}" for correlation in record.ring_correlation)
    return (
        f"step {record.step}: held-out halves agree better by {record.gain:+.2%} ±"
        f" {record.gain_error:.2%}, ring correlation {rings}, checkerboard"
        f" {max(record.checkerboard_share):.3%}"
    )
