"""Enhancing files: each input on its own, outputs whole or absent, one record of the run."""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch

import dstnet
from dstnet.enhancement.restorer import Enhanced, NetworkRestorer
from dstnet.errors import BadInputError, DstnetError, OutputError
from dstnet.io import atomic_path, ensure_writable_folder, write_mrc
from dstnet.movie import Movie


@dataclass
class Summary:
    """What came of a run: one record an input, in order."""

    records: list[dict] = field(default_factory=list)

    def of(self, status: str) -> list[dict]:
        """Records whose status is "done", "skipped" or "failed"."""
        return [r for r in self.records if r["status"] == status]


def output_stems(inputs: Sequence[Path]) -> list[Path]:
    """Each input's name under the output's micrographs folder: its path below the inputs' common folder, without the suffix."""
    parents = [p.absolute().parent for p in inputs]
    common = Path(os.path.commonpath(parents)) if parents else Path()
    return [parent.relative_to(common) / p.stem for p, parent in zip(inputs, parents, strict=True)]


def enhance_files(
    inputs: Sequence[Path],
    folder: Path,
    restorer: NetworkRestorer,
    open_input: Callable[[Path], Movie],
    *,
    frames: bool = False,
    overwrite: bool = False,
    report: Callable[[dict], None] = lambda record: None,
) -> Summary:
    """Enhance every input into `folder`; a bad one is recorded and the others go on.

    Parameters
    ----------
    inputs
        Movie files.
    folder
        Gets ``micrographs/NAME_aligned.mrc``, ``_dw.mrc`` (where the exposure is known), ``_enhanced.mrc``, ``_enhanced_frames.mrcs`` (with
        `frames`) and ``provenance.json``.
    restorer
        The method.
    open_input
        Turns a path into a movie.
    overwrite
        Make again what is already whole; else it is skipped.
    report
        Gets each input's record when it is finished.

    Raises
    ------
    OutputError
        If the folder cannot be written, or holds results made with other settings or weights and `overwrite` is not given.
    """
    ensure_writable_folder(folder)
    made_with = {
        "version": dstnet.__version__,
        "weights": restorer.card.name,
        "weights_sha256": restorer.card.sha256,
        "settings": restorer.settings.model_dump(mode="json"),
    }
    recorded = (folder / "provenance.json").is_file()
    earlier = _earlier(folder, made_with, overwrite)
    # Written before any image: images without a record are then a broken-off run's of these settings, and may be made again.
    _write_provenance(folder, made_with, earlier)
    summary, taken = Summary(), {}
    for path, stem in zip(inputs, output_stems(inputs), strict=True):
        started, cpu = time.perf_counter(), time.process_time()
        name = f"{stem}{path.suffix}" if stem in taken else str(stem)  # records are kept by name; another input's must not be lost
        # A failure now keeps what is on record of the results that lie there: it guards them against other values the next time.
        before = {k: v for k, v in earlier.get(name, {}).items() if k != "error"}
        record: dict = {**before, "input": str(path), "name": name, "status": "failed"}
        try:
            if stem in taken:
                raise BadInputError(f"{path}: its results would have the name of those of {taken[stem]}; enhance it into another folder")
            taken[stem] = path
            movie = open_input(path)
            wanted = _names(folder / "micrographs" / stem, movie, frames)
            made_from = {
                "frames": len(movie),
                "pixel_size_angstrom": movie.pixel_size_angstrom,
                "exposure_per_frame_e_per_a2": movie.exposure_e_per_a2,
                "pre_exposure_e_per_a2": movie.pre_exposure_e_per_a2,
                "voltage_kv": movie.voltage_kv,
            }
            exists = not overwrite and any(p.is_file() for p in wanted)
            if exists and (not recorded or any(k in before and before[k] != v for k, v in made_from.items())):
                raise BadInputError(
                    f"{path}: {wanted[0].parent / stem.name}_* were made with other frames, pixel size, exposure or voltage, or by "
                    "something else; pass --overwrite, or choose another folder"
                )
            if exists and "shifts_angstrom" in before and all(p.is_file() for p in wanted):
                record["status"] = "skipped"
            else:
                enhanced = restorer(movie, frames=frames)
                ensure_writable_folder(wanted[0].parent)
                _write(wanted, enhanced, movie)
                record |= {"status": "done", **made_from, "notes": enhanced.notes}
                record["shifts_angstrom"] = [[round(v, 3) for v in row] for row in enhanced.shifts_angstrom.tolist()]
                record["seconds"], record["cpu_seconds"] = round(time.perf_counter() - started, 2), round(time.process_time() - cpu, 2)
        except OutputError:
            raise
        except DstnetError as error:
            record["error"] = str(error)
        except (MemoryError, torch.OutOfMemoryError) as error:
            record["error"] = f"{path}: out of memory ({error}); pass a smaller --tile or fewer frames"
        summary.records.append(record)
        _write_provenance(folder, made_with, {**earlier, **{r["name"]: r for r in summary.records}})
        report(record)
    return summary


def _names(stem: Path, movie: Movie, frames: bool) -> list[Path]:
    """Files of one movie: aligned sum, enhanced micrograph, then the dose-weighted sum and the enhanced frames where there are any."""
    names = [f"{stem.name}_aligned.mrc", f"{stem.name}_enhanced.mrc"]
    if movie.exposure_e_per_a2 is not None:
        names.append(f"{stem.name}_dw.mrc")
    if frames:
        names.append(f"{stem.name}_enhanced_frames.mrcs")
    return [stem.parent / n for n in names]


def _write(paths: list[Path], enhanced: Enhanced, movie: Movie) -> None:
    images = {
        "_aligned.mrc": (enhanced.aligned, "dstnet: motion-corrected sum, no weighting"),
        "_enhanced.mrc": (enhanced.micrograph, "dstnet: ENHANCED, for looking and picking; use the sums for particles"),
        "_dw.mrc": (enhanced.dose_weighted, "dstnet: motion-corrected, exposure-weighted sum"),
        "_enhanced_frames.mrcs": (enhanced.frames, "dstnet: ENHANCED fractions, for looking; use the movie for particles"),
    }
    for path in paths:
        suffix = next(s for s in images if path.name.endswith(s))
        image, label = images[suffix]
        assert image is not None
        if not float(image.std()) > 0:
            raise BadInputError(f"{movie.name}: the result for {path.name} is constant; look at the input")
        write_mrc(path, image.numpy(), movie.pixel_size_angstrom, label, stack=suffix.endswith(".mrcs"))


def _earlier(folder: Path, made_with: dict, overwrite: bool) -> dict[str, dict]:
    """Records of an earlier run into the same folder, by name; none where it was made with something else and is to be overwritten."""
    try:
        stored = json.loads((folder / "provenance.json").read_text())
        records = {r["name"]: r for r in stored["movies"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    if different := [k for k in made_with if stored.get(k) != made_with[k]]:
        if overwrite:
            return {}
        raise OutputError(f"{folder} holds results made with other {' and '.join(different)}; pass --overwrite, or choose another folder")
    return records


def _write_provenance(folder: Path, made_with: dict, records: dict[str, dict]) -> None:
    with atomic_path(folder / "provenance.json") as path:
        written = {**made_with, "written": datetime.now(UTC).isoformat(timespec="seconds"), "movies": list(records.values())}
        path.write_text(json.dumps(written, indent=2) + "\n")
