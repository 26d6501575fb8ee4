"""dstnet simulate: synthetic movies with their truths."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from dstnet.cli.options import (
    Device,
    Json,
    Output,
    Reporter,
    SettingsFile,
    Whole,
    reporting,
    settings_from,
)
from dstnet.cli.run_options import RunOptions
from dstnet.errors import SettingsError

if TYPE_CHECKING:
    from dstnet.dataset.estimate import Estimate
    from dstnet.dataset.generate import MovieOutcome
    from dstnet.dataset.plan import Plan
    from dstnet.simulation.recipe import Recipe

RECIPES = ", ".join(
    sorted(p.stem for p in (Path(__file__).parents[1] / "simulation" / "recipes").glob("*.yaml"))
)


def simulate(
    structures: Annotated[
        list[str] | None,
        Parameter(
            help=(
                "What is in the ice, each a species of the field: PDB or mmCIF files, EM maps"
                " (.mrc, .map), pdb:ID for an entry of the "
                "Protein Data Bank, phantom:SEED for a made-up complex. Without any, the recipe's,"
                " or else the built-in phantom."
            )
        ),
    ] = None,
    /,
    *,
    output: Output,
    recipe: Annotated[
        str | None,
        Parameter(
            name=["--recipe", "-r"], help=f"A shipped recipe ({RECIPES}) or a YAML file of one."
        ),
    ] = None,
    structure: Annotated[
        list[Path] | None,
        Parameter(
            negative=(),
            help=(
                "A file of one of the recipe's entries, called by it (6sm3.cif), instead of"
                " fetching that; may be given several times."
            ),
        ),
    ] = None,
    stand_in: Annotated[
        bool,
        Parameter(
            negative=(),
            help=(
                "In the place of the recipe's entries, complexes made by formula of the same mass,"
                " symmetry, outline and belt, called stand-in-ID; nothing is fetched."
            ),
        ),
    ] = False,
    movies: Annotated[
        Whole | None,
        Parameter(help="How many; without it the recipe's number, or 1.", validator=Number(gte=1)),
    ] = None,
    seed: Annotated[
        Whole,
        Parameter(help="Of the first movie; each next one has the next.", validator=Number(gte=0)),
    ] = 0,
    pixel_size: Annotated[
        float | None, Parameter(name=["--pixel-size", "--apix", "--angpix"], help="Å.")
    ] = None,
    shape: Annotated[
        tuple[Whole, Whole] | None,
        Parameter(negative=(), help="Height and width of a frame in pixels."),
    ] = None,
    frames: Annotated[Whole | None, Parameter(help="Frames of a movie.")] = None,
    dose_per_frame: Annotated[float | None, Parameter(help="e-/Å2 of one frame.")] = None,
    settings: SettingsFile = None,
    format: Annotated[
        Literal["tif", "mrc"], Parameter(help="Movies as LZW TIFF (.tif) or as MRC stacks (.mrcs).")
    ] = "tif",
    expected_frames: Annotated[
        bool,
        Parameter(
            negative=(),
            help=(
                "Also write the noise-free frames, as large as the movie in 32-bit floats, among"
                " the truths."
            ),
        ),
    ] = False,
    preview: Annotated[
        bool,
        Parameter(
            negative=(),
            help="Also draw OUTPUT/preview/NAME.png: sum, truth, motion, power spectrum, numbers.",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        Parameter(
            negative=(),
            help="Check everything and say how many, how large and how long; write nothing.",
        ),
    ] = False,
    device: Device = None,
    run: RunOptions | None = None,
    json: Json = False,
) -> int:
    """Make synthetic movies: OUTPUT/movies/NAME.tif, and their truths in OUTPUT/truth.

    OUTPUT/movies.star lists them for RELION, to be run from OUTPUT. What is
    already complete there, made with the same settings, is skipped: the same
    command goes on after an interruption. The same seed gives the same bytes,
    whatever the number of workers.

    All else about specimen, microscope, motion and camera is a setting:
    --settings takes a YAML file of them, or OUTPUT/truth/NAME_settings.yaml of
    an earlier movie. A recipe is a YAML file with structures, settings, and
    what varies from movie to movie.
    """
    from dstnet.cli.movies import devices
    from dstnet.dataset.estimate import estimate
    from dstnet.dataset.generate import make_movies
    from dstnet.dataset.plan import plan_movies
    from dstnet.dataset.species_store import SpeciesStore

    options = {
        "pixel_size_angstrom": pixel_size,
        "shape": shape,
        "frames": frames,
        "exposure_e_per_a2": dose_per_frame,
    }
    chosen = _recipe(recipe, settings, options)
    if structures:
        chosen = chosen.model_copy(update={"structures": tuple(structures)})
    chosen = chosen.with_entries(tuple(structure or ()), stand_in=stand_in)
    run = run or RunOptions()
    # Sums differ in the last bit with the number of threads: one each, for the same bytes anywhere.
    workplace = run.workplace(devices(device), threads=1)
    store = SpeciesStore()
    plan = plan_movies(
        chosen,
        output,
        movies=movies or chosen.movies,
        seed=seed,
        store=store,
        movie_format=format,
        expected=expected_frames,
        overwrite=run.overwrite,
        shard=workplace.shard,
    )
    if dry_run:
        cost = estimate(plan, workplace.processes, workplace.devices[0], store)
        _say_plan(plan, cost, Reporter(json))
        return 0
    after = None
    if preview:
        from dstnet.report.overview import write_overview as after
    number = len(plan.movies)
    with reporting(number, "simulating", json) as report:
        count = iter(range(1, number + 1))
        outcomes = make_movies(
            plan,
            workplace,
            store=store,
            after=after,
            report=lambda outcome: report(
                f"[{next(count)}/{number}] {_line(outcome)}", outcome.to_record()
            ),
        )
        failed = [outcome for outcome in outcomes if outcome.status == "failed"]
        made = sum(outcome.status == "done" for outcome in outcomes)
        skipped = len(outcomes) - made - len(failed)
        report.say(
            f"{made} made, {skipped} already there, {len(failed)} failed; movies and truths in"
            f" {output}"
        )
        for outcome in failed:
            report.say(f"failed: {outcome.error}")
    return 1 if failed else 0


def _recipe(name: str | None, file: Path | None, options: dict[str, Any]) -> "Recipe":
    """The recipe of that name, or of a file of settings, or of none, with options; those of None
    were not given.
    """
    from dstnet.simulation import SimulationSettings
    from dstnet.simulation.recipe import Recipe

    if name and file:
        raise SettingsError(
            "--recipe and --settings exclude each other; put the settings into the recipe's own"
            " `settings:`"
        )
    if not name:
        return Recipe(settings=settings_from(SimulationSettings, file, **options))
    given = {option: value for option, value in options.items() if value is not None}
    return Recipe.named(name).with_options(given)


def _line(outcome: "MovieOutcome") -> str:
    if outcome.status == "failed":
        return f"FAILED {outcome.error}"
    if outcome.status == "skipped":
        return f"{outcome.name}: already there, skipped"
    return f"{outcome.name}: {outcome.particles} particles, {outcome.seconds:.1f} s"


def _say_plan(plan: "Plan", cost: "Estimate", report: Reporter) -> None:
    """One line a movie, then the totals."""
    for movie in plan.movies:
        s = movie.settings
        record = {
            "name": movie.name,
            "seed": movie.seed,
            "there": movie.presence == "complete",
            "frames": s.frames,
            "shape": list(s.shape),
            "pixel_size_angstrom": s.pixel_size_angstrom,
            "movie_bytes": movie.movie_bytes,
            "truth_bytes": movie.truth_bytes,
        }
        size = (
            "already there"
            if movie.presence == "complete"
            else f"about {_size(movie.movie_bytes)} and {_size(movie.truth_bytes)} of truths"
        )
        report(
            f"{movie.name}: {s.frames} frames of {s.shape[0]} x {s.shape[1]} at"
            f" {s.pixel_size_angstrom:g} Å/px, {size}",
            record,
        )
    total = {
        "movies": len(plan.movies),
        "to_make": len(plan.todo),
        "bytes": plan.bytes,
        "cpu_seconds": round(cost.cpu_seconds, 2),
        "memory_bytes": cost.memory_bytes,
    }
    line = (
        f"{len(plan.todo)} of {len(plan.movies)} movies to make into {plan.folder}: about"
        f" {_size(plan.bytes)}"
    )
    if plan.todo:
        line += (
            f", roughly {_time(cost.cpu_seconds)} of CPU time and {_size(cost.memory_bytes)} of"
            " memory in all"
        )
    report(line + "; nothing was written", total)


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _time(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    if seconds >= 90:
        return f"{seconds / 60:.0f} min"
    return f"{max(seconds, 1):.0f} s"
