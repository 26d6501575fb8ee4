"""Whether two versions of the package compute the same: record a list of runs, compare recordings.

    python same_output.py list
    python same_output.py record OUT --data SHARED_DATA [--tests FOLDER] [--only NAME ...]
    python same_output.py compare A B [--only NAME ...]

The package that Python finds is the one that is recorded; another checkout's is chosen with
PYTHONPATH=CHECKOUT/src. All runs are of the command line, on the CPU, in one thread. What a run
writes is in OUT/NAME, what it prints in OUT/NAME.log, what all read besides SHARED_DATA in
OUT/inputs, how long each took in OUT/times.json, what was recorded where in OUT/recording.json.

Two recordings can be compared only if the same kind of machine, the same torch and the same NumPy
made them: `compare` says so where they did not. It prints a line for each file that differs, and
exits with 1 if there is any. Not compared are times, memory, the version, and where the folders
lie. Differences of report.html are told and do not count.
"""

import argparse
import filecmp
import glob
import gzip
import json
import os
import platform
import re
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

LAUNCH = "from dstnet.cli import main; main()"
ABOUT = """
import json, platform, pathlib, dstnet, numpy, torch
print(json.dumps({
    "checkout": str(pathlib.Path(dstnet.__file__).resolve().parents[2]),
    "version": dstnet.__version__,
    "python": platform.python_version(),
    "numpy": numpy.__version__,
    "torch": torch.__version__,
    "processor": torch.backends.cpu.get_cpu_capability(),
}))
"""
LIBRARIES = ("OMP", "MKL", "OPENBLAS", "NUMBA")
ALONE = {f"{library}_NUM_THREADS": "1" for library in LIBRARIES}
PLAIN = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "CUDA_VISIBLE_DEVICES": ""}
# Options that every command of a verb gets.
SHARED = {
    "demo": "--device cpu",
    "simulate": "--device cpu",
    "train": "--device cpu",
    "adapt": "--device cpu",
    "enhance": "--device cpu --threads 1",
    "align": "--device cpu --threads 1",
}
LONGEST_SECONDS = 900


# ------------------------------------------------------------------------------ the runs


@dataclass(frozen=True)
class Run:
    """Some commands, one a line, that write into a folder of the run's name.

    Words may hold wildcards, which are expanded as a shell does, `**` excepted; {data} is the
    folder of shared data.
    """

    name: str
    covers: str
    commands: str
    needs: tuple[str, ...] = ()


NETWORK = "{features: 8, growth: 4, dense_layers: 1, widths: [8, 16], blocks: [1, 1]}"
TRAINING = f"""
network: {NETWORK}
stream: {{crop: 64, fractions: 2, working_pixel_angstrom: 4.0, defocus_angstrom: [4000.0, 12000.0]}}
phantoms: 2
poses: 2
batch: 2
warm_up: 2
steps: 20
checkpoint_every: 10
validate_batches: 2
rings: 8
"""
# Settings files, written into OUT/inputs.
SETTINGS = {
    "strong.yaml": """
specimen: {contrast: 2.5, coverage: 0.3}
motion: {local_angstrom: 1.0, drift_angstrom_per_e: 0.2}
detector: {preset: k3, gain_variation: 0.03, gain_tiles: [2, 2], dead_columns: 1,
  hot_pixels_ppm: 150, dead_pixels_ppm: 150}
""",
    "multislice.yaml": """
imaging: multislice
pre_exposure_e_per_a2: 3.0
slab_angstrom: 60.0
specimen: {coverage: 0.2, clustering: 0.5, aggregates_per_um2: 8.0, at_interface: 0.7,
  ice_thickness_angstrom: 400.0, ice_noise: 1.2, thickness_gradient: 0.3,
  contaminants_per_um2: 60.0, crystals_per_um2: 10.0, film_thickness_angstrom: 120.0,
  hole_diameter_angstrom: 900.0}
optics: {voltage_kv: 200.0, phase_plate_deg: 60.0, beam_tilt_x_mrad: 0.4, beam_tilt_y_mrad: -0.2,
  energy_filter: false}
motion: {jumps_per_movie: 1.0, walk_angstrom_per_e: 0.2, height_drift_angstrom: 50.0}
detector: {preset: k3, binning: 0.5, rate_e_per_px_per_s: 10.0, gain_variation: 0.03,
  gain_tiles: [2, 2], dead_columns: 1, hot_pixels_ppm: 100, dead_pixels_ppm: 100, saturation: 200}
""",
    "integrating.yaml": """
damage: b_factor
specimen: {coverage: 0.6, gap_angstrom: -15.0, film_thickness_angstrom: 100.0}
optics: {beam_tilt_x_mrad: 1.0, amplitude_contrast: 0.1}
detector: {mode: integrating, deposition_variance: 0.4, counts_per_electron: 8.0,
  readout_noise: 4.0, mtf_half_frequency: 0.5, binning: 2.0, bits: 16}
""",
    "recipe.yaml": """
structures: ["phantom:3", map.mrc]
movies: 2
species:
  poses: {preferred_spread_deg: 20.0, preferred_tilt_deg: 90.0}
  potential: {hydrogens: true}
settings: {shape: [160, 192], frames: 4, pixel_size_angstrom: 3.0, damage: null}
vary:
  pixel_size_angstrom: {choices: [3.0, 4.0]}
  optics.defocus_angstrom: [6000, 24000]
  detector: {choices: [k2, falcon4, de20]}
""",
    "eager.yaml": "{engine: eager, half_precision: false}",
    "half.yaml": "{engine: eager, half_precision: true}",
    "winograd.yaml": "{engine: winograd}",
    "tiles.yaml": "{tile: 192, overlap: 32, fractions: 8, engine: eager, half_precision: false}",
    "plain.yaml": "{ctf: false, evidence: false, fill: false}",
    "align.yaml": "{acceleration_angstrom: null, resolution_angstrom: 9.0, iterations: 10}",
    "train.yaml": TRAINING + "workers: 0\nframe_weight: 0.3\n",
    "train-worker.yaml": TRAINING + "workers: 1\npixel_loss: l1\nfocal_weight: 0.5\n",
    "train-recorded.yaml": TRAINING
    + "workers: 0\nrecorded: 0.5\nschedule: plateau\nplateau: 1\npixel_loss: charbonnier\n",
    "train-window.yaml": TRAINING.replace("crop: 64", "window: 3, aligned: false, crop: 64")
    + "workers: 0\nframe_weight: 0\n",
    "adapt.yaml": "{crop: 64, held_out: 0.5, batch: 2, learning_rate: 0.01, check_every: 4}",
    "adapt-released.yaml": "{crop: 96, crops_per_movie: 4, batch: 1, check_every: 2, patience: 9}",
    "wrong.yaml": "{fraction: 3, tile: 12}",
    "impossible.yaml": "specimen: {coverage: 0.7}",
}

# A table of movies, the same.
GROUPS = """
data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographOriginalPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
first 1 2.5 300 2.7 0.07
second 2 1.5 200 1.4 0.10

data_movies

loop_
_rlnMicrographMovieName #1
_rlnOpticsGroup #2
_rlnMicrographGainName #3
inputs/formats/mode6.mrc 1 inputs/gain.mrc
inputs/movie.eer 2 inputs/eer_gain.mrc
inputs/formats/mode1.mrc 1 inputs/gain.mrc
"""

REAL = "{data}/real"
APOFERRITIN = " ".join(
    f"{REAL}/apoferritin/{name}_{kind}.mrc"
    for name in ("May08_03.05.02", "May08_04.32.27", "May08_06.09.02")
    for kind in ("average", "frame")
)
HEADS = "--contrast --particles --uncertainty"
DETECTOR = f"{REAL}/detector/de_celeritas"
DETECTOR_REFERENCES = f"--gain {DETECTOR}_gain.mrc --dark {DETECTOR}_dark.mrc"
REFERENCES = "--gain movies/camera/gain_*.mrc --defects movies/camera/defects_*.txt"
FIRST = "movies/movies/*_00000.tif"
DOSE = "--dose-per-frame 2"
EER = f"inputs/movie.eer --pixel-size 2 {DOSE}"
EER_REFERENCES = "--gain inputs/eer_gain.mrc --defects inputs/eer_defects.txt"
SMALL = "--shape 256 256 --frames 4 --pixel-size 2"
FIELDS = "--shape 320 320 --frames 4 --pixel-size 3 --movies 2 --dose-per-frame 4"
STRUCTURES = "{data}/structures"

RUNS = (
    Run("help", "the help of every verb, models", """
        --help
        --version
        demo --help
        enhance --help
        align --help
        simulate --help
        train --help
        adapt --help
        models --help
        gain --help
        gain check --help
        models
        models --json
        """),
    Run("demo", "the demonstration: simulation, local motion, enhancement, picture", """
        demo -o demo
        """),
    Run("apoferritin", "real averages and single frames with all heads", f"""
        enhance {APOFERRITIN} -o apoferritin --pixel-size 1.5 {HEADS}
        """),
    Run("specimens", "other real averages: coarse and fine pixels, 8 bits of 16", f"""
        enhance {REAL}/beta_galactosidase/14_57_34.mrc -o specimens/a --contrast --particles
        enhance {REAL}/ribosome/061.mrc {REAL}/trpv1/stack_0001.mrc -o specimens/b {HEADS}
        enhance {REAL}/empty_ice/18dec17a.mrc -o specimens/c --contrast --uncertainty
        """),
    Run("movies", "two simulated movies of a camera with a gain and defects", f"""
        simulate -o movies --shape 512 512 --frames 12 --pixel-size 2 {DOSE} --movies 2 \
            --settings inputs/strong.yaml --preview
        """),
    Run("enhance", "halves, frames, all heads, gain, defects, local motion, lists", f"""
        enhance {FIRST} -o enhance/all --halves --frames {HEADS} {DOSE} {REFERENCES} --cs 2.7 \
            --amplitude-contrast 0.07
        enhance movies/movies -o enhance/plain
        enhance movies/movies/**/*_00001.tif -o enhance/settings --contrast \
            --settings inputs/plain.yaml
        enhance @inputs/list.txt -o enhance/list --fractions 3 {DOSE} --float16 --bin 1.5 --json
        """, ("movies",)),
    Run("engines", "engines of the network, half precision or not, many tiles", f"""
        enhance {FIRST} -o engines/eager --settings inputs/eager.yaml --frames {HEADS}
        enhance {FIRST} -o engines/half --settings inputs/half.yaml --frames {HEADS}
        enhance {FIRST} -o engines/winograd --settings inputs/winograd.yaml --frames {HEADS}
        enhance {FIRST} -o engines/tiles --settings inputs/tiles.yaml {HEADS}
        """, ("movies",)),
    Run("windows", "weights of windows of raw frames, frame by frame", f"""
        enhance {FIRST} -o windows/a -m dstnet-window-1 --frames --contrast {DOSE} {REFERENCES}
        enhance {FIRST} -o windows/b -m dstnet-window-1 --frame-range 4:6 --halves
        enhance {FIRST} -o windows/c -m dstnet-window-1 --frame-range 1:5 --frames \
            --settings inputs/winograd.yaml
        """, ("movies",)),
    Run("align", "motion correction alone: local, global, halves, binned, half floats, ranges", f"""
        align {FIRST} -o align/local {DOSE} {REFERENCES}
        align {FIRST} -o align/global --patches 0 --halves --bin 2 --float16 {DOSE}
        align {FIRST} -o align/three --patches 3 --bin 1.37 --halves
        align {FIRST} -o align/range --frame-range 3:10 --pre-exposure 5 --voltage 200 {DOSE}
        align {FIRST} -o align/settings --settings inputs/align.yaml
        align {REAL}/gold_growth/gold_growth_k2_13frames.tif -o align/gold --pixel-size 1.635
        """, ("movies",)),
    Run("given", "frame range, motion of an earlier run, frames that are aligned already", f"""
        enhance {FIRST} -o given/range --frame-range 3:10 --pre-exposure 5 --voltage 200 {DOSE}
        enhance {FIRST} -o given/folder --motion-from align/local {DOSE}
        enhance {FIRST} -o given/file --motion-from movies/truth/*_00000_motion.star --halves
        enhance {FIRST} -o given/still --pre-aligned {DOSE} --halves --frames
        align {FIRST} -o given/aligned --motion-from align/local/micrographs.star --frame-range 2:9
        """, ("movies", "align")),
    Run("eer", "EER: grouping by number and by exposure, up-sampling, gain and defects", f"""
        align {EER} -o eer/plain --eer-frames 10
        align {EER} -o eer/fine --eer-frames 10 --eer-upsampling 2 --halves --bin 2
        align {EER} -o eer/finest --eer-frames 20 --eer-upsampling 4 --patches 0
        align inputs/movie.eer -o eer/header --eer-exposure 2 --dose-per-frame 0.2 {EER_REFERENCES}
        align {EER} -o eer/multiplied --eer-frames 8 {EER_REFERENCES} --no-gain-invert
        align {EER} -o eer/tiff_gain --eer-frames 10 --gain inputs/eer.gain --patches 0
        enhance {EER} -o eer/enhanced --eer-frames 10 {EER_REFERENCES} --contrast
        """),
    Run("detector", "a real camera's raw frames with gain and dark, the way they lie", f"""
        align {DETECTOR}_raw.tif -o detector/plain --pixel-size 1 {DETECTOR_REFERENCES}
        align {DETECTOR}_raw.tif -o detector/turned --pixel-size 1 {DETECTOR_REFERENCES} \
            --gain-transpose --gain-rotate 90 --gain-flip left-right --no-mend
        enhance {DETECTOR}_raw.tif -o detector/enhanced --pixel-size 1 {DETECTOR_REFERENCES} \
            --gain-flip up-down
        align {FIRST} -o detector/finer --gain {DETECTOR}_gain.mrc --gain-invert --gain-rotate 180
        gain check {DETECTOR}_raw.tif {DETECTOR_REFERENCES}
        gain check {DETECTOR}_raw.tif {DETECTOR_REFERENCES} --json
        gain check movies/movies/*.tif --gain movies/camera/gain_*.mrc
        """.replace("_raw", "_5x256x256_raw"), ("movies",)),
    Run("star", "STAR in and out: optics groups, gain in the table, motion by a table", """
        enhance movies/movies.star -o star/enhanced --dose-per-frame 2 --halves
        enhance movies/movies.star -o star/again --motion-from star/enhanced/micrographs.star
        align star/enhanced/micrographs.star -o star/onwards
        align inputs/groups.star -o star/groups --patches 0 --eer-frames 10
        align {data}/star_examples/relion_motion_correction_output.star -o star/absent
        """, ("movies",)),
    Run("formats", "every format that is read, bad frames and pixels", f"""
        align inputs/formats -o formats/plain --patches 0 --pixel-size 2
        align inputs/bad_frames.mrc -o formats/mended --patches 0 {DOSE}
        align inputs/bad_frames.mrc -o formats/refused --patches 0 --no-mend --no-drop-bad-frames
        align inputs/bad_frames.mrc -o formats/kept --patches 0 --no-mend --no-drop-bad-frames \
            --frame-range 1:9
        align inputs/formats/mode6.mrc -o formats/corrected --patches 0 --gain inputs/gain.mrc \
            --dark inputs/dark.mrc --defects inputs/defects.mrc
        enhance inputs/bad_frames.mrc -o formats/enhanced --frames
        """),
    Run("schedule", "shards, a second run that skips, overwriting, watching, JSON", f"""
        align movies/movies.star -o schedule/shards --shard 2/2 --patches 0
        align movies/movies.star -o schedule/shards --shard 1/2 --patches 0
        align movies/movies.star -o schedule/shards --patches 0 --json
        align movies/movies.star -o schedule/shards --patches 3
        align movies/movies.star -o schedule/shards --patches 3 --overwrite
        align {FIRST} -o schedule/watched --patches 0 --watch 0.5 \
            --watch-settle 0.1 --watch-idle 1.5
        """, ("movies",)),
    Run("workers", "processes of their own", """
        enhance movies/movies.star -o workers/enhanced --workers 2
        simulate -o workers/simulated --shape 192 192 --frames 3 --pixel-size 3 --movies 2 \
            --workers 2
        """, ("movies",)),
    Run("recipes", "every shipped recipe, small, with previews; a recipe of a file's", f"""
        simulate -o recipes/k3 --recipe k3-300kv --shape 512 512 --frames 4 --preview
        simulate -o recipes/diverse --recipe diverse --movies 4 --shape 384 384 --frames 4 \
            --pixel-size 2 --preview
        simulate -o recipes/flat --recipe flat-field --shape 256 256 --frames 4 --preview
        simulate {STRUCTURES}/6z6u.pdb -o recipes/apoferritin --recipe empiar-10146 --movies 1 \
            --shape 400 400 --frames 6 --preview
        simulate -o recipes/own --recipe inputs/recipe.yaml --preview
        """),
    Run("simulate", "MRC, expected frames, real structures, multislice, an integrating camera", f"""
        simulate -o simulate/mrc {SMALL} --format mrc --expected-frames --seed 7
        simulate {STRUCTURES}/1bxn.pdb -o simulate/structure {SMALL} --expected-frames
        simulate {STRUCTURES}/1mnf.pdb.gz pdb:1ncb phantom:4 -o simulate/species {SMALL}
        simulate {STRUCTURES}/1hv4.pdb -o simulate/multislice {SMALL} --expected-frames \
            --settings inputs/multislice.yaml --preview
        simulate -o simulate/integrating {SMALL} --settings inputs/integrating.yaml
        simulate -o simulate/integrating {SMALL} --settings inputs/integrating.yaml
        simulate -o simulate/repeated --settings simulate/mrc/truth/*_settings.yaml --seed 7
        """),
    Run("estimate", "what a simulation would cost", f"""
        simulate -o estimate/a {SMALL} --movies 3 --dry-run
        """),
    Run("train", "training as crops are simulated, from structures too; using the weights", f"""
        train -o train/phantoms --settings inputs/train.yaml --seed 5
        train {STRUCTURES}/1hv4.pdb {STRUCTURES}/3gl1.pdb --hold-out 3gl1 -o train/structures \
            --settings inputs/train-worker.yaml --steps 10
        train -o train/phantoms --settings inputs/train.yaml --seed 5 --resume
        train -o train/window --settings inputs/train-window.yaml --steps 10 --json
        enhance {FIRST} -o train/used -m train/phantoms/weights.safetensors --frames {HEADS}
        """, ("movies",)),
    Run("train_recorded", "training from movies on disk, alone and beside structures", f"""
        simulate {STRUCTURES}/1hv4.pdb -o train_recorded/data {FIELDS}
        simulate {STRUCTURES}/3gl1.pdb -o train_recorded/held {FIELDS} --seed 5 --format mrc
        train train_recorded/data -o train_recorded/alone --settings inputs/train.yaml
        train train_recorded/data train_recorded/held {STRUCTURES}/3gl1.pdb {STRUCTURES}/1ncb.cif \
            -o train_recorded/mixed --steps 20 --settings inputs/train-recorded.yaml \
            --hold-out 3gl1
        """),
    # Movies by relative paths: crops are drawn by what the movie is called.
    Run("adapt", "weights adapted to movies, tiny and released ones", f"""
        adapt movies/movies/*.tif -o adapt/tiny {DOSE} --settings inputs/adapt.yaml --steps 12 \
            --patches 0 -m train/phantoms/weights.safetensors --json
        adapt movies/movies -o adapt/released {DOSE} --settings inputs/adapt-released.yaml \
            --steps 4
        """, ("movies", "train")),
    Run("failing", "a batch of which one movie of four is good", f"""
        align {FIRST} inputs/cut.tif inputs/text.mrc inputs/absent.mrc -o failing/align \
            --patches 0 --pixel-size 2
        enhance inputs/cut.tif inputs/text.mrc {FIRST} inputs/absent.mrc -o failing/enhance
        """, ("movies",)),
    Run("refused", "what is refused, and in which words", f"""
        enhance {FIRST} -o refused/a --frame-range 5:2
        enhance {FIRST} -o refused/a --shard 3/2
        enhance {FIRST} -o refused/a -m dstnet-99
        enhance {FIRST} -o refused/a --settings inputs/wrong.yaml
        enhance {FIRST} -o refused/a --bin 0.5
        enhance {FIRST} -o refused/a --unknown-option
        enhance inputs/nothing_*.tif -o refused/a
        align {FIRST} -o refused/b --patches 2
        align inputs/bad_frames.mrc -o refused/c --gain inputs/gain.mrc
        align {FIRST} -o refused/d --motion-from inputs
        align {DETECTOR}_5x256x256_raw.tif -o refused/e
        align inputs/text.mrc/inside -o inputs/text.mrc
        simulate -o refused/f --recipe no-such-recipe
        simulate -o refused/f --recipe diverse --settings inputs/strong.yaml
        simulate -o refused/f --settings inputs/impossible.yaml
        simulate inputs/text.mrc -o refused/f
        simulate inputs/absent.pdb -o refused/f
        train -o refused/g --settings inputs/wrong.yaml
        train inputs -o refused/g
        adapt inputs/formats/mode2.mrc -o refused/h -m dstnet-99
        gain check {FIRST}
        gain check {FIRST} --gain {DETECTOR}_gain.mrc
        """, ("movies",)),
)  # fmt: skip
UNORDERED = {"workers"}  # movies end in any order


def chosen_runs(only: list[str] | None) -> list[Run]:
    """The runs of these names and those that they need, in the list's order; all without names."""
    known = {run.name: run for run in RUNS}
    if unknown := set(only or ()) - known.keys():
        sys.exit(f"no run {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    wanted = set(only or known)
    for run in reversed(RUNS):
        if run.name in wanted:
            wanted |= set(run.needs)
    return [run for run in RUNS if run.name in wanted]


# ------------------------------------------------------------------------------ what they read


def _mrc(array: np.ndarray, mode: int, order: Literal["<", ">"] = "<", pixel: float = 2.0) -> bytes:
    """An MRC file of a stack [frame, y, x] of numbers of the mode; 4-bit ones come two a byte."""
    frames, height, width = array.shape
    header = np.zeros(256, f"{order}i4")
    header[:4] = width * 2 if mode == 101 else width, height, frames, mode
    header[7:10] = header[0], height, 1
    header[16:19] = 1, 2, 3
    header[10:13].view(f"{order}f4")[:] = header[0] * pixel, height * pixel, pixel
    header[13:16].view(f"{order}f4")[:] = 90
    header[27] = 20140
    stored = header.view(np.uint8)
    stored[208:212] = np.frombuffer(b"MAP ", np.uint8)
    stored[212:214] = 0x44 if order == "<" else 0x11
    return header.tobytes() + array.astype(array.dtype.newbyteorder(order)).tobytes()


def _scene(sides: tuple[int, int], shift: float = 0.0) -> np.ndarray:
    """Transmission [y, x] of discs that lie moved to the right by some pixels."""
    random = np.random.default_rng(11)
    y, x = np.mgrid[: sides[0], : sides[1]]
    image = np.ones(sides)
    for cy, cx in random.uniform(0, 1, (sides[0] * sides[1] // 800, 2)) * sides:
        image -= 0.4 * np.exp(-((((y - cy) ** 2 + (x - cx - shift) ** 2) / 30) ** 2))
    return image.clip(0.1)


def _counts(frames: int, sides: tuple[int, int], mean: float, speed: float = 0.7) -> np.ndarray:
    """Poisson counts [frame, y, x] of the scene in motion."""
    random = np.random.default_rng(12)
    means = np.stack([_scene(sides, speed * i) for i in range(frames)]) * mean
    return random.poisson(means).astype(np.uint16)


def _write_formats(folder: Path) -> None:
    """One small movie in every format that is read."""
    import imagecodecs
    import tifffile

    folder.mkdir()
    movie = _counts(6, (160, 144), 7.0).clip(0, 15)
    small, real = movie.astype(np.int8), movie.astype(np.float32)
    modes = {0: small, 1: movie.astype(np.int16), 2: real, 6: movie, 12: real.astype(np.float16)}
    for mode, array in modes.items():
        (folder / f"mode{mode}.mrc").write_bytes(_mrc(array, mode))
        (folder / f"mode{mode}_big.mrcs").write_bytes(_mrc(array, mode, ">"))
    bytes_of = movie.astype(np.uint8)
    packed = bytes_of[..., ::2] | bytes_of[..., 1::2] << 4
    (folder / "mode101.mrc").write_bytes(_mrc(packed, 101))
    plain = _mrc(movie, 6)
    (folder / "packed_gz.mrc.gz").write_bytes(gzip.compress(plain, mtime=0))
    (folder / "packed_bz2.mrc.bz2").write_bytes(imagecodecs.bz2_encode(plain))
    (folder / "packed_xz.mrc.xz").write_bytes(__import__("lzma").compress(plain))
    (folder / "packed_zst.mrc.zst").write_bytes(imagecodecs.zstd_encode(plain))
    kinds = {"lzw": bytes_of, "zlib": movie, "zstd": real, "none": real.astype(np.float16)}
    for kind, array in kinds.items():
        for name, options in (("", {}), ("_big", {"bigtiff": True, "byteorder": ">"})):
            path = folder / f"tiff_{kind}{name}.tif"
            method = None if kind == "none" else kind
            tifffile.imwrite(path, array, compression=method, photometric="minisblack", **options)


def _write_bad(folder: Path) -> None:
    """Files that are no movies, and a movie with bad frames and pixels."""
    movie = _counts(12, (192, 192), 9.0).astype(np.float32)
    movie[3], movie[5], movie[7] = 4.0, movie[4], movie[7] * 3
    movie[9, 10, 10] = np.nan
    movie[:, 50, 60], movie[:, 80, 20], movie[:, :, 100] = 500.0, 0.0, 0.0
    (folder / "bad_frames.mrc").write_bytes(_mrc(movie, 2))
    (folder / "text.mrc").write_text("this is no image\n" * 100)
    whole = (folder / "formats" / "tiff_lzw.tif").read_bytes()
    (folder / "cut.tif").write_bytes(whole[: len(whole) // 2])


def _write_eer(folder: Path, tests: Path) -> None:
    """An EER movie by the tests' own writer, since nothing else writes any; gain and defects."""
    sys.path.insert(0, str(tests))
    import eer_writer  # pyright: ignore[reportMissingImports]
    import tifffile

    sides, random = (256, 256), np.random.default_rng(13)
    gain = 1 + 0.05 * random.standard_normal((1, *sides)).astype(np.float32)
    gain[0, 20, :] = 0
    sensitivity = np.divide(1, gain[0], out=np.zeros(sides, np.float32), where=gain[0] > 0)
    streams = []
    for i in range(80):
        chance = 0.08 * _scene(sides, 0.05 * i) * sensitivity
        streams.append(eer_writer.encode(eer_writer.random_events(random, sides, chance), sides))
    eer_writer.write_eer(folder / "movie.eer", streams, sides, pixel_size_m=2e-10)
    (folder / "eer_gain.mrc").write_bytes(_mrc(gain, 2))
    tifffile.imwrite(folder / "eer.gain", 1 / gain[0].clip(0.1), photometric="minisblack")
    (folder / "eer_defects.txt").write_text("0 20 256 1\n100 100 3 2\n")


def _write_references(folder: Path) -> None:
    """References of a camera, and a table of movies in two optics groups, each with its gain."""
    random, sides = np.random.default_rng(14), (1, 160, 144)
    gain = 1 + 0.05 * random.standard_normal(sides).astype(np.float32)
    defects = np.zeros(sides, np.int8)
    defects[0, 30:33, 40:50] = defects[0, :, 7] = 1
    (folder / "gain.mrc").write_bytes(_mrc(gain, 2))
    (folder / "dark.mrc").write_bytes(_mrc(0.5 * gain * gain, 2))
    (folder / "defects.mrc").write_bytes(_mrc(defects, 0))
    (folder / "groups.star").write_text(GROUPS.lstrip())


def make_inputs(folder: Path, data: Path, tests: Path) -> None:
    """Write what the runs read besides the shared data and each other's results."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "cache").mkdir(parents=True)
    for name, text in SETTINGS.items():
        (folder / name).write_text(text.lstrip())
    (folder / "list.txt").write_text("# movies\nmovies/movies/phantom0_D7_00001.tif\n")
    entry = (data / "structures" / "1ncb.cif").read_bytes()
    (folder / "cache" / "1ncb.cif.gz").write_bytes(gzip.compress(entry, mtime=0))
    z, y, x = np.mgrid[:48, :48, :48] - 24.0
    volume = np.exp(-(((x / 14) ** 2 + (y / 10) ** 2 + (z / 8) ** 2) ** 2)).astype(np.float32)
    map_file = bytearray(_mrc(volume, 2, pixel=3.0))
    map_file[36:40] = (48).to_bytes(4, "little")  # of a volume: as many intervals as sections
    map_file[48:52] = np.float32(48 * 3.0).tobytes()
    map_file[88:92] = (1).to_bytes(4, "little")
    (folder / "map.mrc").write_bytes(map_file)
    _write_formats(folder / "formats")
    _write_bad(folder)
    _write_references(folder)
    _write_eer(folder, tests)


# ------------------------------------------------------------------------------ recording


def environment(out: Path) -> dict[str, str]:
    """Of the runs: one thread, plain text, no GPU, nothing downloaded."""
    paths = [str(Path(p).resolve()) for p in os.environ.get("PYTHONPATH", "").split(":") if p]
    cache = {"DSTNET_CACHE": str(out / "inputs" / "cache")}
    return {**os.environ, **ALONE, **PLAIN, **cache, "PYTHONPATH": ":".join(paths)}


def words_of(command: str, out: Path, data: Path) -> list[str]:
    """The command's words, wildcards expanded, with what all commands of its verb are given."""
    words: list[str] = []
    for word in shlex.split(command.replace("{data}", str(data))):
        found = sorted(glob.glob(word, root_dir=out)) if "*" in word and "**" not in word else []
        words += found or [word]
    if "--help" not in words:
        words += SHARED.get(words[0], "").split()
    return words


def record_run(run: Run, out: Path, data: Path) -> dict[str, Any]:
    """Do a run anew; its log is written beside its folder."""
    shutil.rmtree(out / run.name, ignore_errors=True)
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    codes, log = [], []
    for command in run.commands.replace("\\\n", " ").strip().splitlines():
        words = words_of(command.strip(), out, data)
        done = subprocess.run(
            [sys.executable, "-P", "-c", LAUNCH, *words],
            cwd=out,
            env=environment(out),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONGEST_SECONDS,
        )
        codes.append(done.returncode)
        log.append(f"$ dstnet {shlex.join(words)}\n{done.stdout}--- standard error\n{done.stderr}")
        log.append(f"--- exit code {done.returncode}\n\n")
    (out / f"{run.name}.log").write_text("".join(log))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    seconds = {"wall": time.perf_counter() - started, "cpu": cpu}
    crashed = "Traceback" in "".join(log)
    return {**{k: round(v, 2) for k, v in seconds.items()}, "exit": codes, "crashed": crashed}


def record(options: argparse.Namespace) -> int:
    """Do the runs and say how long each took."""
    out, data = options.out.resolve(), options.data.resolve()
    out.mkdir(parents=True, exist_ok=True)
    about = subprocess.run(
        [sys.executable, "-P", "-c", ABOUT], env=environment(out), capture_output=True, text=True
    )
    if about.returncode:
        sys.exit(f"the package cannot be imported:\n{about.stderr}")
    made = {**json.loads(about.stdout), "machine": platform.machine()}
    made |= {"folder": str(out), "data": str(data)}
    print(f"dstnet {made['version']} of {made['checkout']}", flush=True)
    make_inputs(out / "inputs", data, options.tests.resolve())
    (out / "recording.json").write_text(json.dumps(made, indent=2) + "\n")
    times_file = out / "times.json"
    times = json.loads(times_file.read_text()) if times_file.is_file() else {}
    runs = chosen_runs(options.only)
    for run in runs:
        times[run.name] = took = record_run(run, out, data)
        times_file.write_text(json.dumps(times, indent=2) + "\n")
        codes = " ".join(map(str, took["exit"]))
        crashed = "  TRACEBACK in its log" if took["crashed"] else ""
        print(f"{run.name:15} {took['cpu']:6.1f} CPU s, exit {codes}{crashed}", flush=True)
    print(f"{len(runs)} runs, {sum(times[r.name]['cpu'] for r in runs):.0f} CPU s in all")
    return 0


# ------------------------------------------------------------------------------ comparing

# Values of these names differ between runs of the same program; that they are there is compared.
VOLATILE = {"time", "written", "seconds", "cpu_seconds", "peak_memory_bytes", "threads", "version"}
# The same in what is printed.
VOLATILE_TEXT = (
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(\+00:00)?"), "<time>"),
    (re.compile(rf'("(?:{"|".join(sorted(VOLATILE))})": )("[^"]*"|[\d.]+)'), r"\1<>"),
    (re.compile(r"\b\d+(\.\d+)? (steps/s|s|min|h)\b"), r"<> \2"),
    (re.compile(r"\d{8}T\d{6}-[0-9a-f]{8}"), "<journal>"),
)
JOURNAL = re.compile(r"\d{8}T\d{6}-[0-9a-f]{8}\.jsonl")


@dataclass(frozen=True)
class Recording:
    """A recording and what of it depends on where and when it was made."""

    folder: Path
    made: dict[str, str]
    times: dict[str, dict]

    @classmethod
    def read(cls, folder: Path) -> "Recording":
        """The recording in a folder."""
        try:
            made = json.loads((folder / "recording.json").read_text())
            return cls(folder, made, json.loads((folder / "times.json").read_text()))
        except (OSError, ValueError) as error:
            sys.exit(f"{folder} holds no whole recording: {error}")

    def files(self, run: str) -> dict[str, Path]:
        """A run's files by what they are called in any recording: a folder's journals by number."""
        found: dict[str, Path] = {}
        journals: Counter[Path] = Counter()
        for path in sorted((self.folder / run).rglob("*")):
            if path.is_dir():
                continue
            relative = path.relative_to(self.folder)
            if JOURNAL.fullmatch(path.name):
                journals[path.parent] += 1
                relative = relative.with_name(f"{journals[path.parent]}.jsonl")
            found[str(relative)] = path
        log = self.folder / f"{run}.log"
        return {**found, log.name: log} if log.is_file() else found

    def told(self, text: str) -> str:
        """Text without what depends on where, when and by which version it was written."""
        for key in ("folder", "data", "checkout"):
            text = text.replace(self.made[key], f"<{key}>")
        text = text.replace(self.made["version"], "<version>")
        for pattern, instead in VOLATILE_TEXT:
            text = pattern.sub(instead, text)
        return text

    def settled(self, value: Any) -> Any:
        """The same of a tree of values."""
        if isinstance(value, dict):
            inner = {k: "<>" if k in VOLATILE else self.settled(v) for k, v in value.items()}
            return {self.told(k): v for k, v in inner.items()}
        if isinstance(value, list):
            return [self.settled(v) for v in value]
        return self.told(value) if isinstance(value, str) else value


def _mrc_parts(path: Path, recording: Recording) -> dict[str, Any]:
    import mrcfile

    with mrcfile.open(path, permissive=True) as file:
        header: Any = file.header
        fields = {name: header[name] for name in header.dtype.names if name != "label"}
        labels = "\n".join(file.get_labels())
        return {
            "data": np.array(file.data),
            "header": {name: np.asarray(value).tolist() for name, value in fields.items()},
            "labels": recording.told(labels).splitlines(),
        }


def _tiff_parts(path: Path, recording: Recording) -> dict[str, Any]:
    import tifffile

    with tifffile.TiffFile(path) as file:
        tags = {
            tag.name: str(tag.value) for tag in file.pages.first.tags if "Offset" not in tag.name
        }
        return {"data": file.asarray(), "tags": recording.settled(tags)}


def _png_parts(path: Path, recording: Recording) -> dict[str, Any]:
    from PIL import Image

    with Image.open(path) as image:
        return {"pixels": np.asarray(image)}


def _numpy_parts(path: Path, recording: Recording) -> dict[str, Any]:
    loaded = np.load(path)
    return {"data": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)


def _weights_parts(path: Path, recording: Recording) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        told = dict(file.metadata() or {})
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    values = {name: _as_json(told[name]) for name in sorted(told)}  # written in any order
    if "sha256" in values:  # a checkpoint's, of the tensors and of how long they took
        values["sha256"] = "<>"
    return {
        **{name: tensor.float().numpy() for name, tensor in tensors.items()},
        "metadata": recording.settled(values),
        "types": {name: str(tensor.dtype) for name, tensor in tensors.items()},
    }


def _as_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _json_parts(path: Path, recording: Recording) -> dict[str, Any]:
    return {"values": recording.settled(json.loads(path.read_text()))}


def _lines_parts(path: Path, recording: Recording) -> dict[str, Any]:
    lines = [recording.settled(json.loads(line)) for line in path.read_text().splitlines()]
    if path.parent.name == "records":  # in whatever order the movies were done
        lines.sort(key=lambda line: json.dumps(line, sort_keys=True))
    return {"values": lines}


def _yaml_parts(path: Path, recording: Recording) -> dict[str, Any]:
    import yaml

    return {"values": recording.settled(yaml.safe_load(path.read_text()))}


def _text_parts(path: Path, recording: Recording) -> dict[str, Any]:
    lines = recording.told(path.read_text(errors="replace")).splitlines()
    if path.stem in UNORDERED and path.suffix == ".log":
        lines = sorted(re.sub(r"^\[\d+/\d+\] ", "", line) for line in lines)
    return {"text": lines}


READERS: dict[str, Callable[[Path, Recording], dict[str, Any]]] = {
    ".mrc": _mrc_parts,
    ".mrcs": _mrc_parts,
    ".tif": _tiff_parts,
    ".png": _png_parts,
    ".npy": _numpy_parts,
    ".npz": _numpy_parts,
    ".safetensors": _weights_parts,
    ".json": _json_parts,
    ".jsonl": _lines_parts,
    ".yaml": _yaml_parts,
    ".star": _text_parts,
    ".log": _text_parts,
    ".txt": _text_parts,
    ".csv": _text_parts,
    ".html": _text_parts,
}


def array_difference(a: np.ndarray, b: np.ndarray) -> str | None:
    """How far two arrays are apart, None where they are equal."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{a.dtype} {a.shape} against {b.dtype} {b.shape}"
    if a.tobytes() == b.tobytes():
        return None
    a, b = a.astype(np.float64), b.astype(np.float64)
    unlike = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    if not unlike.any():
        return "signs of zero or kinds of NaN alone"
    far = np.abs(a - b)[unlike]
    far[np.isnan(far)] = np.inf  # not a number on one side alone, or unlike infinities
    largest, deviation = float(far.max()), float(np.nanstd(a))
    relative = f", {largest / deviation:.3g} of the deviation" if deviation else ""
    return f"at most {largest:.6g} apart{relative}; {unlike.sum()} of {a.size} values differ"


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a tree of values with their dotted names; lists by number."""
    if isinstance(value, dict | list) and value:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _same(x: Any, y: Any) -> bool:
    return type(x) is type(y) and (x == y or (x != x and y != y))


def tree_difference(a: Any, b: Any) -> str | None:
    """What differs between two trees of values, None where nothing does."""
    a, b = dict(_leaves(a)), dict(_leaves(b))
    missing = [name for name in a if name not in b] + [name for name in b if name not in a]
    unlike = [name for name in a if name in b and not _same(a[name], b[name])]
    if not missing and not unlike:
        return None if list(a) == list(b) else "the order of names alone"
    told = [f"{len(missing)} on one side alone, as {missing[0]}"] if missing else []
    if unlike:
        first = unlike[0]
        told.append(f"{len(unlike)} unlike, as {first}: {a[first]!r} against {b[first]!r}"[:160])
    pairs = [(a[n], b[n]) for n in unlike if isinstance(a[n], float) and isinstance(b[n], float)]
    if pairs:
        told.append(f"numbers at most {max(abs(x - y) for x, y in pairs):.6g} apart")
    return "; ".join(told)


def text_difference(a: list[str], b: list[str]) -> str | None:
    """The first line that differs between two texts, None where none does."""
    if a == b:
        return None
    pairs = list(zip(a, b, strict=False))
    number = next((i for i, (x, y) in enumerate(pairs) if x != y), len(pairs))
    unlike = sum(x != y for x, y in pairs) + abs(len(a) - len(b))
    ours, theirs = (t[number] if number < len(t) else "(its end)" for t in (a, b))
    alike = next((i for i, (x, y) in enumerate(zip(ours, theirs, strict=False)) if x != y), 0)
    start = max(0, alike - 30)
    ours, theirs = ours[start : start + 100], theirs[start : start + 100]
    return f"{unlike} lines unlike, first line {number + 1}: {ours!r} against {theirs!r}"


def part_difference(a: Any, b: Any) -> str | None:
    """How two parts of files differ, whatever they are."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return array_difference(a, b)
    if isinstance(a, list) and all(isinstance(line, str) for line in a + b):
        return text_difference(a, b)
    return tree_difference(a, b)


def file_difference(a: Path, b: Path, recordings: tuple[Recording, Recording]) -> str | None:
    """How two files of unlike bytes differ in content, None if they do not."""
    reader = READERS.get(a.suffix)
    if reader is None:
        return "bytes differ"
    try:
        ours, theirs = (reader(p, r) for p, r in zip((a, b), recordings, strict=True))
    except Exception as error:
        return f"bytes differ, and one cannot be read: {error}"
    if ours.keys() != theirs.keys():
        return f"parts on one side alone: {', '.join(sorted(ours.keys() ^ theirs.keys()))}"
    found = {name: part_difference(ours[name], theirs[name]) for name in ours}
    told = [f"{name}: {what}" for name, what in found.items() if what]
    more = f" (and {len(told) - 3} parts more)" if len(told) > 3 else ""
    return "; ".join(told[:3]) + more or None


def compared_runs(a: Recording, b: Recording, only: list[str] | None) -> tuple[list[str], int]:
    """The runs to compare, and how many of those asked for lack on one side."""
    wanted = only or sorted(a.times.keys() | b.times.keys())
    both = [run for run in wanted if run in a.times and run in b.times]
    for run in wanted:
        if run not in both:
            side = a if run in b.times else b
            print(f"{run}: not in {side.folder}")
    return ["inputs", *both], len(wanted) - len(both)


def compare(options: argparse.Namespace) -> int:
    """Compare two recordings; 1 if they differ."""
    a, b = Recording.read(options.a), Recording.read(options.b)
    for key in ("python", "numpy", "torch", "processor", "machine"):
        if a.made[key] != b.made[key]:
            print(f"warning: unlike {key}, {a.made[key]} and {b.made[key]}: so may all numbers be")
    runs, absent = compared_runs(a, b, options.only)
    count = dict.fromkeys(("bytes", "content", "differ", "missing", "pages"), 0)
    for run in runs:
        ours, theirs = a.files(run), b.files(run)
        for name in sorted(ours.keys() | theirs.keys()):
            if name not in ours or name not in theirs:
                print(f"{name}: not in {(b if name in ours else a).folder}")
                count["missing"] += 1
            elif filecmp.cmp(ours[name], theirs[name], shallow=False):
                count["bytes"] += 1
            elif told := file_difference(ours[name], theirs[name], (a, b)):
                page = ours[name].suffix == ".html"
                print(f"{name}: {told}{' (does not count)' if page else ''}")
                count["pages" if page else "differ"] += 1
            else:
                count["content"] += 1
    cpu = [sum(r.times[run]["cpu"] for run in runs if run != "inputs") for r in (a, b)]
    print(
        f"{len(runs) - 1} runs, {sum(count.values())} files: {count['bytes']} equal to the byte, "
        f"{count['content']} but for what changes each time, {count['pages']} pages unlike, "
        f"{count['differ']} differ, {count['missing']} missing on one side, {absent} runs missing; "
        f"{cpu[0]:.0f} and {cpu[1]:.0f} CPU s"
    )
    return 1 if count["differ"] or count["missing"] or absent else 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("list", help="say what each run covers")
    verb.set_defaults(do=list_runs)
    verb = verbs.add_parser("record", help="do the runs with the package that Python finds")
    verb.add_argument("out", type=Path)
    verb.add_argument("--data", type=Path, required=True, help="the folder of shared data")
    beside = Path(__file__).resolve().parents[2] / "tests"
    verb.add_argument("--tests", type=Path, default=beside, help="the folder with eer_writer.py")
    verb.add_argument("--only", nargs="+", metavar="NAME", help="these runs and what they need")
    verb.set_defaults(do=record)
    verb = verbs.add_parser("compare", help="say what differs between two recordings")
    verb.add_argument("a", type=Path)
    verb.add_argument("b", type=Path)
    verb.add_argument("--only", nargs="+", metavar="NAME", help="these runs")
    verb.set_defaults(do=compare)
    options = parser.parse_args()
    return options.do(options)


def list_runs(options: argparse.Namespace) -> int:
    """Say what each run covers."""
    for run in RUNS:
        print(f"{run.name:15} {run.covers}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
