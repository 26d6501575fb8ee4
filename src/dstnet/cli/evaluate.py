"""dstnet evaluate: methods side by side, in numbers and by eye."""

from functools import partial
from pathlib import Path
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
    reporting,
    settings_from,
)
from dstnet.cli.run_options import RunOptions
from dstnet.cli.summary import say_threads
from dstnet.errors import SettingsError

if TYPE_CHECKING:
    from dstnet.evaluation.run import MovieOutcome


def evaluate(
    movies: Movies,
    /,
    *,
    output: Output,
    truth: Annotated[
        Path | None,
        Parameter(
            help=(
                "Folder of truths of movies that lie elsewhere: one of dstnet simulate, or with"
                " NAME_clean.mrc (NAME_phase.mrc, NAME_label.mrc) or NAME.npz (clean)."
            )
        ),
    ] = None,
    picks: Annotated[
        list[Path] | None,
        Parameter(
            negative=(),
            help=(
                "Folder of marked particles: NAME_picks.csv, .star or .box, or CryoPPP's CSV;"
                " their diameter stands in its set.json, or is given. May be given several times."
            ),
        ),
    ] = None,
    diameter: Annotated[float | None, Parameter(help="Å, of the marked particles.")] = None,
    methods: Annotated[
        str | None,
        Parameter(
            help=(
                "Names by commas; without it, all that need nothing installed and fit, and those"
                " of the options below."
            )
        ),
    ] = None,
    external: Annotated[
        list[str] | None,
        Parameter(
            negative=(),
            help=(
                "NAME=FOLDER:SUFFIX, results of another program: FOLDER/MOVIE+SUFFIX.mrc of every"
                " movie."
            ),
        ),
    ] = None,
    janni: Annotated[Path | None, Parameter(help="JANNI's published weights (.h5).")] = None,
    topaz: Annotated[str | None, Parameter(help="The program topaz, for topaz denoise.")] = None,
    topaz_options: Annotated[
        str | None,
        Parameter(
            allow_leading_hyphen=True,
            help="Further options of topaz denoise, '--patch-size 1280 --patch-padding 128'.",
        ),
    ] = None,
    relion: Annotated[
        str | None, Parameter(help="The program relion_run_motioncorr, version 3.1 or later.")
    ] = None,
    measures: Annotated[str | None, Parameter(help="Names by commas; without it, all.")] = None,
    reference: Annotated[
        str | None, Parameter(help="The method that all are compared with; else the plain sum.")
    ] = None,
    controls: Annotated[
        bool | None,
        Parameter(
            negative=(),
            help="Also give the methods pure noise, shuffled pixels and, simulated, empty ice.",
        ),
    ] = None,
    hallucination: Annotated[
        bool,
        Parameter(
            negative=(),
            help=(
                "Simulated movies: also say what methods draw where particles were erased"
                " (erased.md, erased.csv, erased.png)."
            ),
        ),
    ] = False,
    reconstruction: Annotated[
        bool,
        Parameter(
            negative=(),
            help=(
                "Simulated movies of one structure a folder: also say what maps of what methods"
                " give promise, and what is true of it (maps.md, maps.csv, maps-NAME.png)."
            ),
        ),
    ] = False,
    structures: Annotated[
        list[Path] | None,
        Parameter(
            negative=(),
            help="Folders of the structure files that movies were simulated of, for the two.",
        ),
    ] = None,
    border: Annotated[int | None, Parameter(help="Pixels left out at each side; 48.")] = None,
    seed: Annotated[int | None, Parameter(help="Of controls and intervals.")] = None,
    movie: MovieOptions | None = None,
    references: ReferenceOptions | None = None,
    device: Device = None,
    run: RunOptions | None = None,
    settings: SettingsFile = None,
    json: Json = False,
) -> int:
    """Compare methods on movies: by the truth of simulated ones, by marked particles, by neither.

    Movies are files, as of dstnet enhance, or folders that dstnet simulate
    wrote. Writes scores.csv (every number), means.csv and differences.csv
    (with 95 % intervals), table.md, table.tex, scores.json; of each data set
    panel-NAME.png, frc-NAME.png, bars-NAME.png; evaluation.html with all of
    it, and provenance.json. What is on record is not made again: the same
    command goes on after an interruption, and further methods or movies may
    be added to it.
    """
    from dstnet.cli.movies import camera_references, devices, movie_settings
    from dstnet.evaluation import EvaluationSettings, SubjectOptions, find_subjects, make_candidates
    from dstnet.evaluation import evaluate as evaluate_subjects
    from dstnet.evaluation.records import claim_folder
    from dstnet.evaluation.run import chosen_measures
    from dstnet.report.evaluation import write_report
    from dstnet.report.trust import Trust

    chosen = settings_from(
        EvaluationSettings,
        settings,
        methods=_names(methods),
        external=_external(external),
        janni=janni,
        topaz=topaz,
        topaz_options=topaz_options,
        relion=relion,
        measures=_names(measures),
        reference=reference,
        controls=controls,
        border_px=border,
        seed=seed,
    )
    run = run or RunOptions()
    workplace = run.workplace(devices(device))
    remarks: list[str] = []
    options = SubjectOptions(
        movie_settings(movie), camera_references(references), truth, tuple(picks or ()), diameter
    )
    subjects, unread = find_subjects(movies, options, report=remarks.append)
    chosen_measures(chosen)  # refused before anything is made
    with reporting(len(subjects), "evaluating", json) as report:
        for remark in remarks:
            report.say(remark)
        candidates = make_candidates(
            chosen,
            subjects,
            partial(claim_folder, output, chosen.shared, overwrite=run.overwrite),
            device=workplace.devices[0],
            say=report.say,
        )
        say_threads(workplace, report)
        numbers = iter(range(1, len(subjects) + 1))

        def tell(outcome: "MovieOutcome") -> None:
            line = f"[{next(numbers)}/{len(subjects)}] {_line(outcome)}"
            report(line, outcome.scores.model_dump(mode="json", exclude={"methods"}))

        evaluation = evaluate_subjects(
            subjects,
            candidates,
            output,
            chosen,
            workplace=workplace,
            overwrite=run.overwrite,
            report=tell,
        )
        left_out = [*unread, *evaluation.left_out]
        trust = Trust(subjects, candidates, output, chosen, tuple(structures or ()))
        if hallucination:
            left_out += trust.write_erased(workplace, report.say)
        if reconstruction:
            left_out += trust.write_maps(report.say)
        page = write_report(output, evaluation, left_out)
        for line in left_out:
            report.say(f"left out: {line}")
        report.say(f"{len(subjects)} movies, {len(candidates)} methods; see {page}")
    return 1 if left_out else 0


def _names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _external(given: list[str] | None) -> dict[str, str] | None:
    """Results of other programs by name, as they were given.

    Raises
    ------
    SettingsError
        If one has no name, or two have the same.
    """
    if given is None:
        return None
    found: dict[str, str] = {}
    for text in given:
        name, equals, where = text.partition("=")
        if not (name and equals and where):
            raise SettingsError(f"--external {text!r} is not NAME=FOLDER:SUFFIX")
        if name in found:
            raise SettingsError(f"--external {name} is given twice; give each a name of its own")
        found[name] = where
    return found


def _line(outcome: "MovieOutcome") -> str:
    subject = outcome.subject
    scores = outcome.scores
    if scores.problems and not outcome.made:
        return f"FAILED {'; '.join(scores.failures(()))}"
    made = ", ".join(outcome.made) or "all on record already"
    failed = [name for name in outcome.made if scores.methods[name].problems]
    without = f"; left out in part: {', '.join(failed)}" if failed else ""
    return f"{subject.dataset}/{subject.name}: {made}{without}"
