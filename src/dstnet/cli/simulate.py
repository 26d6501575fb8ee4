"""dstnet simulate: synthetic movies with their truths."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from dstnet.cli.options import Json, Output, SettingsFile, reporting, settings_from


def simulate(
    structures: Annotated[
        list[Path] | None, Parameter(help="PDB or mmCIF files, each a species of the field; without any, the built-in phantom.")
    ] = None,
    /,
    *,
    output: Output,
    movies: Annotated[int, Parameter(help="How many.", validator=Number(gte=1))] = 1,
    seed: Annotated[int, Parameter(help="Of the first movie; each next one has the next.")] = 0,
    pixel_size: Annotated[float | None, Parameter(name=["--pixel-size", "--apix", "--angpix"], help="Å.")] = None,
    shape: Annotated[tuple[int, int] | None, Parameter(help="Height and width of a frame in pixels.")] = None,
    frames: Annotated[int | None, Parameter(help="Frames of a movie.")] = None,
    dose_per_frame: Annotated[float | None, Parameter(help="e-/Å2 of one frame.")] = None,
    settings: SettingsFile = None,
    json: Json = False,
) -> int:
    """Make synthetic movies: OUTPUT/movies/NAME.tif, and their truths in OUTPUT/truth.

    What is already whole there, made with the same settings, is skipped. Everything else about the specimen, the microscope, the motion and
    the camera is a setting: --settings takes a YAML file of them, or the OUTPUT/truth/NAME_settings.yaml of an earlier movie.
    """
    import dstnet
    from dstnet.potential import Projector, build_potential
    from dstnet.simulation import MovieRecord, Shot, SimulationSettings, write_shot
    from dstnet.specimen.species import ProjectedSpecies
    from dstnet.structure import phantom, read_structure

    chosen = settings_from(
        SimulationSettings, settings, pixel_size_angstrom=pixel_size, shape=shape, frames=frames, exposure_e_per_a2=dose_per_frame
    )
    species = []
    for atoms in [read_structure(p) for p in structures] if structures else [phantom()]:
        projector = Projector(build_potential(atoms, chosen.pixel_size_angstrom), chosen.optics.voltage_kv)
        species.append(ProjectedSpecies(atoms.name, atoms.diameter_angstrom / 2, projector))
    with reporting(movies, "simulating", json) as report:
        for i in range(movies):
            name = f"{'-'.join(s.name for s in species)[:80]}_{seed + i:05d}"
            record = MovieRecord(
                name=name,
                seed=seed + i,
                species=tuple(s.name for s in species),
                version=dstnet.__version__,
                settings=chosen.model_dump(mode="json"),
            )
            shot = Shot(chosen, species, seed + i)
            written = write_shot(shot, output, record)
            status = f"{len(shot.truth.particles)} particles" if written else "already there, skipped"
            report(f"{name}: {status}", {"name": name, "status": "done" if written else "skipped", "particles": len(shot.truth.particles)})
    return 0
