"""dstnet enhance: the main job."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from dstnet.cli.options import Device, Json, Output, SettingsFile, chosen_device, frame_range, reporting, settings_from


def enhance(
    movies: list[Path],
    /,
    *,
    output: Output,
    pixel_size: Annotated[
        float | None,
        Parameter(name=["--pixel-size", "--apix", "--angpix"], help="Å; needed where the file does not say, wins where it does."),
    ] = None,
    dose_per_frame: Annotated[float | None, Parameter(help="e-/Å2 of one frame; without it there is no dose-weighted sum.")] = None,
    pre_exposure: Annotated[float, Parameter(help="e-/Å2 on the specimen before the first frame.")] = 0.0,
    voltage: Annotated[float, Parameter(help="kV.")] = 300.0,
    frame_range_: Annotated[
        str | None, Parameter(name="--frame-range", help="A:B, frames A to B, from 1, inclusive; either may be left out.")
    ] = None,
    frames: Annotated[
        bool, Parameter(negative=(), help="Also write the enhanced frames (one per fraction, see --fractions; aligned) as a stack.")
    ] = False,
    fractions: Annotated[
        int | None, Parameter(help="Groups that the frames are summed to before the network; default as trained with.")
    ] = None,
    model: Annotated[
        str | None, Parameter(name=["--model", "-m"], help="Released weights (see dstnet models), or a .safetensors file.")
    ] = None,
    tile: Annotated[int | None, Parameter(help="Side of the network's tiles in pixels of 2 Å; smaller takes less memory.")] = None,
    device: Device = None,
    settings: SettingsFile = None,
    overwrite: Annotated[bool, Parameter(negative=(), help="Make again what is already there; else whole results are skipped.")] = False,
    json: Json = False,
) -> int:
    """Align and enhance movies or single images (MRC, TIFF).

    For each input NAME, writes into OUTPUT/micrographs: NAME_aligned.mrc (motion-corrected sum), NAME_dw.mrc (dose-weighted sum, where the
    dose is known), NAME_enhanced.mrc, and NAME_enhanced_frames.mrcs with --frames. OUTPUT/provenance.json records how, and what failed.
    """
    from dstnet.enhancement import EnhancementSettings, NetworkRestorer, enhance_files
    from dstnet.io import open_movie

    chosen = settings_from(EnhancementSettings, settings, fractions=fractions, model=model, tile=tile)
    wanted = frame_range(frame_range_)
    where = chosen_device(device)
    restorer = NetworkRestorer(chosen, where)

    def opened(path: Path):
        return open_movie(
            path,
            pixel_size_angstrom=pixel_size,
            exposure_e_per_a2=dose_per_frame,
            pre_exposure_e_per_a2=pre_exposure,
            voltage_kv=voltage,
            frames=wanted,
        )

    with reporting(len(movies), "enhancing", json) as report:
        report.say(f"{len(movies)} inputs, {restorer.card.name} on {where}")
        number = iter(range(1, len(movies) + 1))
        summary = enhance_files(
            movies,
            output,
            restorer,
            opened,
            frames=frames,
            overwrite=overwrite,
            report=lambda record: report(f"[{next(number)}/{len(movies)}] {_line(record)}", record),
        )
    done, skipped, failed = (summary.of(s) for s in ("done", "skipped", "failed"))
    report.say(f"{len(done)} enhanced, {len(skipped)} already there, {len(failed)} failed; results in {output}")
    for record in failed:
        report.say(f"failed: {record['error']}")
    return 1 if failed else 0


def _line(record: dict) -> str:
    if record["status"] == "failed":
        return f"FAILED {record['error']}"
    if record["status"] == "skipped":
        return f"{record['input']}: already there, skipped"
    shifts = record["shifts_angstrom"]
    motion = max(((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) ** 0.5 for a in shifts for b in (shifts[0], shifts[-1]))
    notes = "".join(f"\n    note: {n}" for n in record["notes"])
    return f"{record['input']}: {record['frames']} frames, moved {motion:.1f} Å, {record['seconds']:.1f} s{notes}"
