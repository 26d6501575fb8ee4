"""dstnet align: motion correction alone."""

from dstnet.cli.gain import ReferenceOptions
from dstnet.cli.movies import MovieOptions, Movies, RunOptions, SumOptions
from dstnet.cli.options import Device, Json, Output, SettingsFile, settings_from


def align(
    movies: Movies,
    /,
    *,
    output: Output,
    movie: MovieOptions | None = None,
    sums: SumOptions | None = None,
    references: ReferenceOptions | None = None,
    device: Device = None,
    run: RunOptions | None = None,
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
    from dstnet.cli.movies import alignment_values, devices, job_values
    from dstnet.cli.movies import run as run_movies
    from dstnet.pipeline import Job

    chosen = settings_from(AlignmentSettings, settings, **alignment_values(sums))
    job = Job(chosen, devices(device), **job_values(movie, sums, references))
    return run_movies(movies, output, job, run, doing="aligning", as_json=json)
