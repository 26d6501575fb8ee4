"""A simulated movie written to disk with its truths."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dstnet.core.progress import progress
from dstnet.dataset.layout import MovieFiles
from dstnet.dataset.movie_facts import (
    FACTS_ENDING,
    MeanCounts,
    MovieFacts,
    facts_as_json,
    file_facts,
    statistics_of,
)
from dstnet.dataset.record import MovieFormat
from dstnet.dataset.truth_files import (
    EXPECTED_ENDING,
    MOTION_ENDING,
    TABLES,
    TRUTH_IMAGES,
    truth_endings,
)
from dstnet.dataset.truth_tables import ctf_table, motion_values, optics_table, particle_table
from dstnet.io import atomic_path, ensure_writable_folder, write_movie, write_mrc
from dstnet.io.star import write_star
from dstnet.motion import RelionMovie
from dstnet.simulation import MovieSimulator


@dataclass(frozen=True)
class MovieWriter:
    """Writes one movie. Its record comes last: that is there when all the rest is complete.

    Parameters
    ----------
    files
        Where the movie lies, and its record.
    simulator
        Of this record.
    movie_format
        Of the movie.
    expected
        Write the noise-free frames too.
    """

    files: MovieFiles
    simulator: MovieSimulator
    movie_format: MovieFormat
    expected: bool

    def write(self) -> None:
        """Simulate the movie and write it with its truths.

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        files = self.files
        ensure_writable_folder(files.folder / "truth")
        ensure_writable_folder(files.folder / "movies")
        files.record_path.unlink(missing_ok=True)  # the old movie is not complete from here on
        self._write_camera()
        counts_per_pixel = self._write_movie()
        if self.expected:
            self._write_expected()
        self._write_images()
        with atomic_path(files.truth_path(MOTION_ENDING)) as path:
            path.write_text(json.dumps(motion_values(self.simulator.truth)) + "\n")
        self._write_tables()
        self._write_facts(counts_per_pixel)
        with atomic_path(files.record_path) as path:
            path.write_text(files.record.to_yaml())

    def _write_camera(self) -> None:
        """Gain reference and defects, where the camera has them and no earlier movie left them."""
        files = self.files
        camera = self.simulator.camera
        if camera.gain is None and camera.defects is None:
            return
        ensure_writable_folder(files.folder / "camera")
        if camera.gain is not None and not files.gain_path.is_file():
            write_mrc(
                files.gain_path,
                camera.gain.cpu().numpy(),
                files.settings.pixel_size_angstrom,
                "dstnet gain reference: corrected = raw x gain",
            )
        if camera.defects is not None and not files.defects_path.is_file():
            lines = [f"{x} {y} {width} {height}\n" for x, y, width, height in camera.defect_list()]
            with atomic_path(files.defects_path) as path:
                path.write_text("".join(lines))

    def _write_movie(self) -> float:
        """Write the frames; the mean of their pixels."""
        settings = self.files.settings
        dtype = self.simulator.camera.dtype
        if self.movie_format == "mrc" and dtype == np.uint8:
            dtype = np.dtype(np.uint16)  # MRC has no unsigned bytes
        counts = MeanCounts()

        def frames() -> Iterator[np.ndarray]:
            for done, frame in enumerate(self.simulator.frames(), 1):
                progress("simulating, frame", done, settings.frames)
                recorded = frame.cpu().numpy().astype(dtype)
                counts.add(recorded)
                yield recorded

        path = self.files.movie_path(self.movie_format)
        pixel = settings.pixel_size_angstrom
        write_movie(path, frames(), pixel, "dstnet synthetic movie, counts")
        return counts.mean

    def _write_expected(self) -> None:
        write_mrc(
            self.files.truth_path(EXPECTED_ENDING),
            (frame.cpu().numpy() for frame in self.simulator.expected_frames()),
            self.files.settings.pixel_size_angstrom,
            "dstnet truth: expected electrons per pixel, no noise",
            stack=True,
        )

    def _write_images(self) -> None:
        for truth in TRUTH_IMAGES:
            image = truth.image(self.simulator).cpu().numpy()
            write_mrc(
                self.files.truth_path(truth.ending),
                image.astype(truth.dtype, copy=False),
                self.files.settings.pixel_size_angstrom,
                f"dstnet truth: {truth.label}",
            )

    def _write_tables(self) -> None:
        """Motion, CTF and particles as RELION writes them."""
        files = self.files
        settings = files.settings
        truth = self.simulator.truth
        movie = files.movie_path(self.movie_format).relative_to(files.folder).as_posix()
        described = RelionMovie(
            shape=settings.shape,
            pixel_size_angstrom=settings.pixel_size_angstrom,
            movie_name=movie,
            exposure_e_per_a2=settings.exposure_e_per_a2,
            pre_exposure_e_per_a2=settings.pre_exposure_e_per_a2,
            voltage_kv=settings.optics.voltage_kv,
        )
        motion = truth.motion.to_relion(described)
        if self.simulator.camera.gain is not None:
            gain = files.gain_path.relative_to(files.folder).as_posix()
            motion["general"] = {**motion["general"], "rlnMicrographGainName": gain}
        optics = optics_table(settings)
        particles = particle_table(settings, truth.particles, movie)
        tables = {
            "motion": motion,
            "ctf": {"optics": optics, "micrographs": ctf_table(settings, movie)},
            "particles": {"optics": optics, "particles": particles},
        }
        for name in TABLES:
            write_star(files.truth_path(f"{name}.star"), tables[name], float_format="%.9g")

    def _write_facts(self, counts_per_pixel: float) -> None:
        """Statistics, and a digest of each file written so far."""
        files = self.files
        endings = [ending for ending in truth_endings(self.expected) if ending != FACTS_ENDING]
        paths = [files.movie_path(self.movie_format), *map(files.truth_path, endings)]
        facts = MovieFacts(
            statistics=statistics_of(self.simulator, counts_per_pixel),
            files={path.relative_to(files.folder).as_posix(): file_facts(path) for path in paths},
        )
        with atomic_path(files.truth_path(FACTS_ENDING)) as path:
            path.write_text(json.dumps(facts_as_json(facts), indent=1) + "\n")
