"""The page of a run: what was made, how, and what failed; one HTML file that asks for nothing
outside itself.
"""

import base64
import io
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml
from PIL import Image

from dstnet.errors import BadInputError, printable
from dstnet.io import MrcFrames, atomic_path
from dstnet.pipeline.ownership import PAGE, refuse_foreign
from dstnet.pipeline.products import PRODUCTS
from dstnet.pipeline.record import MadeWith, Record, Results
from dstnet.pipeline.records import StoredRun, read_records
from dstnet.report.picture import averaged_down

MOST_PICTURES = 100  # movies shown with pictures: some 15 kB each
SIDE_PIXELS = 220
LOW_PASS_ANGSTROM = 20.0  # what the eye can use of a plain sum
QUALITY = 72  # of JPEG; noise costs most of the bytes
TRACK_PIXELS = 110
_TRACK_MARGIN = 1.15
_GREY_PERCENTILES = 0.5, 99.5
# Black and white, in units of the noise above the sum's mean; what is less than the noise does not
# show as particles do.
_CONTRAST_RANGE = -1.5, 0.5
# The same of others, which may be wider, each picture by its own, but no narrower.
_LEAST_RANGES = {"enhanced": (-0.3, 0.3), "dose_weighted": (-0.6, 0.6), "aligned": (-0.6, 0.6)}
_LEAST_ERROR = 0.3  # that is white
# Sharpened, few domes are deeper.
_PARTICLES_RANGE = -0.6, 0.0

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)


class RunPage:
    """``report.html`` of a run's folder, newest movies first.

    Pictures are drawn once, so that the page can be written again and again while a run goes on.

    Parameters
    ----------
    folder
        Of the run.

    Attributes
    ----------
    path
        Of the page.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / PAGE
        self._folder = folder
        self._drawn: dict[tuple[str, str], _Shown] = {}  # by a record's name and time

    def write(self, stored: StoredRun | None = None) -> None:
        """Write the page, from the images of the folder and its records; without `stored`, those
        are read.

        Raises
        ------
        BadInputError
            If the folder has no records of a run.
        OutputError
            If the page cannot be written, or one that is not ours lies there.
        """
        refuse_foreign(self.path)
        stored = stored or read_records(self._folder)
        if stored.made_with is None:
            raise BadInputError(
                f"{self._folder} holds no provenance.json of a run; give the output folder of"
                " dstnet enhance or align"
            )
        records = sorted(stored.movies, key=lambda record: record.order, reverse=True)
        done = [record for record in records if record.status != "failed"]
        drawn = {}
        for record in done[:MOST_PICTURES]:
            key = (record.name, record.time)
            drawn[key] = self._drawn.get(key) or _movie(self._folder, record)
        self._drawn = drawn
        values: dict[str, Any] = {
            "title": printable(f"dstnet: {self._folder.absolute().name}"),
            "written": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
            "records": records,
            "done": len(done),
            "failed": [(printable(record.input), record.error) for record in stored.failures],
            "shown": list(drawn.values()),
            "left_out": max(0, len(done) - MOST_PICTURES),
            "made_with": stored.made_with,
            "settings": _settings(stored.made_with),
        }
        with atomic_path(self.path) as path:
            path.write_text(_TEMPLATES.get_template("run.html").render(values), encoding="utf-8")


def _settings(made_with: MadeWith) -> str:
    """All settings as YAML; version and weights stand above them."""
    values = made_with.model_dump(exclude={"version", "weights", "weights_sha256"})
    return yaml.safe_dump(values, sort_keys=False)


@dataclass(frozen=True)
class _Shown:
    """A movie as the page shows it."""

    name: str
    pictures: list[dict[str, str]]
    track: dict[str, Any] | None
    facts: list[tuple[str, Any]]
    notes: list[str]


@dataclass(frozen=True)
class _Picture:
    """A picture to be drawn of a kind of file."""

    kind: str
    caption: str
    low_pass_angstrom: float | None = None


def _movie(folder: Path, record: Record) -> _Shown:
    source = record.source
    results = record.results
    assert source is not None and results is not None
    pixel = results.output_pixel_size_angstrom
    notes = list(results.notes)
    pictures = []
    for picture in _pictures(results):
        try:
            image = np.asarray(MrcFrames(folder / results.files[picture.kind])[0])
        except BadInputError as error:
            notes.append(str(error))
            continue
        small = _small(image, pixel, picture.low_pass_angstrom)
        data = _jpeg(small, _grey_range(small, picture.kind, results.noise_scale))
        pictures.append({"caption": picture.caption, "data": data})
    exposure = source.total_exposure_e_per_a2
    facts = [
        ("frames", source.frames),
        ("pixel size", f"{pixel:.4g} Å"),
        ("exposure", "not known" if exposure is None else f"{exposure:.1f} e⁻/Å²"),
        ("accumulated motion", results.motion_in_words()),
    ]
    return _Shown(printable(record.name), pictures, _track(results.shifts_angstrom), facts, notes)


def _pictures(results: Results) -> list[_Picture]:
    """What is shown of a movie: its best sum, and whatever was made of it."""
    plain = "dose_weighted" if "dose_weighted" in results.files else "aligned"
    caption = f"{plain.replace('_', '-')} sum, low-passed to {LOW_PASS_ANGSTROM:.0f} Å"
    made = [
        _Picture(product.kind, product.caption)
        for product in PRODUCTS
        if product.caption and product.kind in results.files
    ]
    return [_Picture(plain, caption, LOW_PASS_ANGSTROM), *made]


def _small(
    image: np.ndarray, pixel_size_angstrom: float, low_pass_angstrom: float | None
) -> np.ndarray:
    """About as many pixels of an image as are shown, [y, x]."""
    # A rough mean first: transforms of full size would take the time.
    step = min(image.shape) // (2 * SIDE_PIXELS)
    small, step = averaged_down(image.astype(np.float32), step)
    if low_pass_angstrom is not None:
        small_pixel_angstrom = pixel_size_angstrom * step
        small = _low_passed(small, low_pass_angstrom / small_pixel_angstrom)
    return small


def _jpeg(small: np.ndarray, grey_range: tuple[float, float]) -> str:
    """A picture, black and white at the ends of a range, row 0 at the top, as base64."""
    low, high = grey_range
    levels = (small - low) / max(high - low, 1e-30) * 255
    picture = Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))
    picture.thumbnail((SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=QUALITY)
    return base64.b64encode(stream.getvalue()).decode()


def _grey_range(
    image: np.ndarray, kind: str, noise_scale: tuple[float, float] | None
) -> tuple[float, float]:
    """What is black and what is white in a picture of a kind of file: where the noise is known, the
    same for all or no less than would show noise; else all but the darkest and brightest pixels.
    """
    low, high = np.percentile(image, _GREY_PERCENTILES).tolist()
    if kind == "particles":
        return _PARTICLES_RANGE
    if noise_scale is None:
        return low, high
    mean, noise = noise_scale
    if kind == "contrast":
        darkest, brightest = _CONTRAST_RANGE
        return mean + noise * darkest, mean + noise * brightest
    if kind == "uncertainty":
        return 0.0, max(high, _LEAST_ERROR * noise)
    if kind in _LEAST_RANGES:
        middle = float(np.median(image))
        below, above = _LEAST_RANGES[kind]
        return min(low, middle + noise * below), max(high, middle + noise * above)
    return low, high


def _low_passed(image: np.ndarray, pixels: float) -> np.ndarray:
    """Through a Gaussian that falls to 1/e at a period of `pixels`."""
    height, width = image.shape
    y = np.fft.fftfreq(height)[:, None]
    x = np.fft.rfftfreq(width)[None]
    squared = y * y + x * x
    transfer = np.exp(-squared * pixels**2)
    spectrum = np.fft.rfft2(image)
    return np.fft.irfft2(spectrum * transfer, image.shape)


def _track(shifts_angstrom: list[list[float]]) -> dict[str, Any] | None:
    """The motion's path as a line, y downwards as in the pictures; None for a single image."""
    if len(shifts_angstrom) < 2:
        return None
    shifts = np.asarray(shifts_angstrom)
    lowest = shifts.min(0)
    highest = shifts.max(0)
    middle = (highest + lowest) / 2
    extent = float((highest - lowest).max())
    side = max(1.0, extent * _TRACK_MARGIN)
    from_middle = (shifts - middle) / side
    places = (from_middle + 0.5) * TRACK_PIXELS
    first_y, first_x = places[0]
    points = [f"{x:.1f},{y:.1f}" for y, x in places]
    return {
        "size": TRACK_PIXELS,
        "points": " ".join(points),
        "x": f"{first_x:.1f}",
        "y": f"{first_y:.1f}",
        "side": f"{side:.1f}",
    }
