"""dstnet align: motion correction alone."""

from dstnet.cli.gain import ReferenceOptions
from dstnet.cli.movies import MovieOptions, SumOptions
from dstnet.cli.options import Device, Json, Movies, Output, SettingsFile, settings_from
from dstnet.cli.run_options import MovieRunOptions


def align(
    movies: Movies,
    /,
    *,
    output: Output,
    movie: MovieOptions | None = None,
    sums: SumOptions | None = None,
    references: ReferenceOptions | None = None,
    device: Device = None,
    run: MovieRunOptions | None = None,
    settings: SettingsFile = None,
    json: Json = False,
) -> int:
    """Correct and align movies, and sum them; no network.

    For each input NAME, writes into OUTPUT/micrographs: NAME_aligned.mrc
    (motion-corrected sum), NAME_dw.mrc (dose-weighted sum, where the dose is
    known) and NAME.star (its motion). OUTPUT/micrographs.star is for RELION to
    go on from, OUTPUT/report.html for a look; OUTPUT/provenance.json says how
    all was made and what failed.
    """
    from dstnet.alignment import AlignmentSettings
    from dstnet.cli.movies import alignment_values, devices, run_settings
    from dstnet.cli.movies import run as run_movies

    method = settings_from(AlignmentSettings, settings, **alignment_values(sums))
    chosen = run_settings(method, movie, sums, references)
    return run_movies(movies, output, chosen, run, devices(device), doing="aligning", as_json=json)
