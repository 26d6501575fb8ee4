"""dstnet enhance: the main job."""

from typing import Annotated

from cyclopts import Parameter

from dstnet.cli.gain import ReferenceOptions
from dstnet.cli.movies import MovieOptions, Movies, RunOptions, SumOptions
from dstnet.cli.options import Device, Json, Output, SettingsFile, settings_from


def enhance(
    movies: Movies,
    /,
    *,
    output: Output,
    movie: MovieOptions | None = None,
    frames: Annotated[
        bool,
        Parameter(
            negative=(),
            help=(
                "Also write the enhanced frames (one per fraction, see --fractions; aligned) as a"
                " stack. "
                "Weights of windows: each raw frame, where it lies."
            ),
        ),
    ] = False,
    contrast: Annotated[
        bool,
        Parameter(
            negative=(),
            help=(
                "Also write the estimate without the CTF: particles dark on flat ice, for looking"
                " and template-free pickers."
            ),
        ),
    ] = False,
    uncertainty: Annotated[
        bool,
        Parameter(
            negative=(), help="Also write the expected error of the enhanced micrograph, per pixel."
        ),
    ] = False,
    particles: Annotated[
        bool,
        Parameter(
            negative=(),
            help="Also write where particles are, a dark dome on each, for template-free pickers.",
        ),
    ] = False,
    fractions: Annotated[
        int | None,
        Parameter(help="Groups that the frames are summed to before the network; default 5."),
    ] = None,
    model: Annotated[
        str | None,
        Parameter(
            name=["--model", "-m"],
            help="Released weights (see dstnet models), or a .safetensors file.",
        ),
    ] = None,
    tile: Annotated[
        int | None,
        Parameter(help="Side of the network's tiles in pixels of 2 Å; smaller takes less memory."),
    ] = None,
    sums: SumOptions | None = None,
    references: ReferenceOptions | None = None,
    device: Device = None,
    run: RunOptions | None = None,
    settings: SettingsFile = None,
    json: Json = False,
) -> int:
    """Correct, align and enhance movies or single images.

    For each input NAME, writes into OUTPUT/micrographs: NAME_aligned.mrc
    (motion-corrected sum), NAME_dw.mrc (dose-weighted sum, where the dose is
    known), NAME_enhanced.mrc, NAME.star (its motion), and what else is asked
    for. OUTPUT/micrographs.star is for RELION to go on from, OUTPUT/report.html
    for a look; OUTPUT/provenance.json says how all was made and what failed.
    """
    from dstnet.cli.movies import alignment_values, devices, job_values
    from dstnet.cli.movies import run as run_movies
    from dstnet.enhancement import EnhancementSettings
    from dstnet.pipeline import Job

    chosen = settings_from(
        EnhancementSettings, settings, fractions=fractions, model=model, tile=tile
    )
    if given := alignment_values(sums):
        merged = {**chosen.model_dump(), "alignment": {**chosen.alignment.model_dump(), **given}}
        chosen = EnhancementSettings.checked(merged, "options")
    wanted = {"contrast": contrast, "uncertainty": uncertainty, "particles": particles}
    heads = tuple(name for name, given in wanted.items() if given)
    job = Job(
        chosen,
        devices(device),
        enhanced_frames=frames,
        heads=heads,
        **job_values(movie, sums, references),
    )
    return run_movies(movies, output, job, run, doing="enhancing", as_json=json)
