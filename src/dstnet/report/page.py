"""The page of a run: what was made, how, and what failed; one HTML file that asks for nothing
outside itself.
"""

import base64
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml
from PIL import Image

from dstnet.errors import BadInputError
from dstnet.io import MrcFrames, atomic_path
from dstnet.pipeline.records import read_records

MOST_PICTURES = 100  # movies shown with pictures: some 15 kB each
SIDE_PIXELS = 220
LOW_PASS_ANGSTROM = 20.0  # what the eye can use of a plain sum
QUALITY = 72  # of JPEG; noise costs most of the bytes
TRACK_PIXELS = 110

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_page(folder: Path) -> Path:
    """Write ``report.html`` of a run's folder, from its records and images.

    Raises
    ------
    BadInputError
        If the folder has no records of a run.
    OutputError
        If the page cannot be written.
    """
    made_with, found = read_records(folder)
    if not made_with:
        raise BadInputError(
            f"{folder} holds no provenance.json of a run; give the output folder of dstnet enhance"
            " or align"
        )
    records = list(found.values())
    done = [r for r in records if r["status"] != "failed"]
    settings = {
        k: v for k, v in made_with.items() if k not in ("version", "weights", "weights_sha256")
    }
    values: dict[str, Any] = {
        "title": f"dstnet: {folder.absolute().name}",
        "written": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "records": records,
        "whole": len(done),
        "failed": [r for r in records if r["status"] == "failed"],
        "shown": [_movie(folder, r) for r in done[:MOST_PICTURES]],
        "left_out": max(0, len(done) - MOST_PICTURES),
        "made_with": made_with,
        "settings": yaml.safe_dump(settings, sort_keys=False),
    }
    with atomic_path(folder / "report.html") as path:
        path.write_text(_TEMPLATES.get_template("run.html").render(values), encoding="utf-8")
    return folder / "report.html"


def _movie(folder: Path, record: dict) -> dict[str, Any]:
    files, pixel = record["files"], record["output_pixel_size_angstrom"]
    plain = "dose_weighted" if "dose_weighted" in files else "aligned"
    shown: list[tuple[str, str, float | None]] = [
        (
            plain,
            f"{plain.replace('_', '-')} sum, low-passed to {LOW_PASS_ANGSTROM:.0f} Å",
            LOW_PASS_ANGSTROM,
        )
    ]
    captions = {
        "enhanced": "enhanced",
        "contrast": "contrast without CTF",
        "particles": "where particles are",
        "uncertainty": "expected error, bright: large",
    }
    shown += [(kind, caption, None) for kind, caption in captions.items() if kind in files]
    pictures, notes = [], list(record.get("notes", ()))
    for kind, caption, limit in shown:
        try:
            pictures.append(
                {
                    "caption": caption,
                    "data": _jpeg(np.asarray(MrcFrames(folder / files[kind])[0]), pixel, limit),
                }
            )
        except BadInputError as error:
            notes.append(str(error))
    exposure = record["exposure_per_frame_e_per_a2"]
    total, _, _ = record["accumulated_motion_angstrom"]
    facts = [
        ("frames", record["frames"]),
        ("pixel size", f"{pixel:.4g} Å"),
        (
            "exposure",
            "not known" if exposure is None else f"{exposure * record['frames']:.1f} e⁻/Å²",
        ),
        ("motion", f"{total:.1f} Å in all"),
    ]
    return {
        "name": record["name"],
        "pictures": pictures,
        "track": _track(record["shifts_angstrom"]),
        "facts": facts,
        "notes": notes,
    }


def _jpeg(image: np.ndarray, pixel_size_angstrom: float, low_pass_angstrom: float | None) -> str:
    """A small picture of an image, grey between its 0.5 and 99.5 percent, row 0 at the top, as
    base64.
    """
    small, pixel = image.astype(np.float32), pixel_size_angstrom
    step = max(
        1, min(small.shape) // (2 * SIDE_PIXELS)
    )  # a rough mean first: transforms of full size would take the time
    height, width = (n // step * step for n in small.shape)
    small, pixel = (
        small[:height, :width].reshape(height // step, step, width // step, step).mean((1, 3)),
        pixel * step,
    )
    if low_pass_angstrom is not None:
        y, x = np.fft.fftfreq(small.shape[0])[:, None], np.fft.rfftfreq(small.shape[1])[None]
        # A Gaussian that falls to 1/e at the limit.
        filtered = np.fft.rfft2(small) * np.exp(-(y * y + x * x) * (low_pass_angstrom / pixel) ** 2)
        small = np.fft.irfft2(filtered, small.shape)
    low, high = np.percentile(small, (0.5, 99.5))
    grey = np.clip((small - low) / max(high - low, 1e-30) * 255, 0, 255).astype(np.uint8)
    picture = Image.fromarray(grey)
    picture.thumbnail((SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=QUALITY)
    return base64.b64encode(stream.getvalue()).decode()


def _track(shifts_angstrom: list[list[float]]) -> dict[str, Any] | None:
    """The way of the motion as a line, y downwards as in the pictures; None for a single image."""
    if len(shifts_angstrom) < 2:
        return None
    way = np.asarray(shifts_angstrom)
    middle, side = (way.max(0) + way.min(0)) / 2, max(1.0, float(np.ptp(way, 0).max()) * 1.15)
    at = ((way - middle) / side + 0.5) * TRACK_PIXELS
    points = " ".join(f"{x:.1f},{y:.1f}" for y, x in at)
    return {
        "size": TRACK_PIXELS,
        "points": points,
        "x": f"{at[0, 1]:.1f}",
        "y": f"{at[0, 0]:.1f}",
        "side": f"{side:.1f}",
    }
