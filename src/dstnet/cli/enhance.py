"""dstnet enhance: the main job."""

from typing import Annotated

from cyclopts import Parameter

from dstnet.cli.gain import ReferenceOptions
from dstnet.cli.movies import MovieOptions, SumOptions
from dstnet.cli.options import Device, Json, Movies, Output, SettingsFile, Whole, settings_from
from dstnet.cli.output_options import OutputOptions, requested_outputs
from dstnet.cli.run_options import MovieRunOptions


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
                "Also write the enhanced frames (one a group, see --groups; aligned) as a stack."
                " Weights of windows: each raw frame, where it lies."
            ),
        ),
    ] = False,
    outputs: OutputOptions | None = None,
    groups: Annotated[
        Whole | None,
        Parameter(
            # The second is how versions before 0.8 call it.
            name=["--groups", "--fractions"],
            help="Groups that the frames are summed to before the network; default 5.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        Parameter(
            name=["--model", "-m"],
            help=(
                "Released weights, a .safetensors file, or a method without weights (see dstnet"
                " models)."
            ),
        ),
    ] = None,
    tile: Annotated[
        Whole | None,
        Parameter(help="Side of the network's tiles in pixels of 2 Å; smaller takes less memory."),
    ] = None,
    sums: SumOptions | None = None,
    references: ReferenceOptions | None = None,
    device: Device = None,
    run: MovieRunOptions | None = None,
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
    from dstnet.cli.movies import alignment_values, devices, run_settings
    from dstnet.cli.movies import run as run_movies
    from dstnet.enhancement import EnhancementSettings

    method = settings_from(EnhancementSettings, settings, groups=groups, model=model, tile=tile)
    values = alignment_values(sums)
    if values:
        alignment = {**method.alignment.model_dump(), **values}
        merged = {**method.model_dump(), "alignment": alignment}
        method = EnhancementSettings.checked(merged, "options")
    chosen = run_settings(
        method,
        movie,
        sums,
        references,
        outputs=requested_outputs(outputs),
        enhanced_frames=frames,
    )
    return run_movies(movies, output, chosen, run, devices(device), doing="enhancing", as_json=json)
