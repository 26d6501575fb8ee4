"""What `mutations.py` mutates: a small good file of every kind that is read, and what reads it as
the commands do.
"""

# ruff: noqa: E402 - what tests have is found only once their folders are known

import bz2
import contextlib
import gzip
import lzma
import sys
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import mrcfile
import numpy as np
import tifffile
import torch

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "tests" / p) for p in ("", "unit")]

import mutated_runs
from eer_writer import encode, random_events, write_eer  # pyright: ignore[reportMissingImports]
from mutated_runs import Kind
from test_correction import dm4_folder, dm4_image  # pyright: ignore[reportMissingImports]

from dstnet.alignment import AlignmentSettings
from dstnet.correction.settings import CorrectionSettings
from dstnet.enhancement import EnhancementSettings
from dstnet.errors import BadInputError
from dstnet.io import EerSettings, open_movie, write_mrc
from dstnet.io.reference import read_dark, read_defects, read_gain
from dstnet.io.star import write_star
from dstnet.io.star_table import read_star
from dstnet.motion import Motion, RelionMovie
from dstnet.movie import Movie
from dstnet.pipeline import read_inputs
from dstnet.pipeline.imported_motion import imported_motion
from dstnet.pipeline.inputs import InputMovie
from dstnet.pipeline.motion_source import read_tables
from dstnet.potential.from_map import potential_from_map
from dstnet.simulation.recipe import Recipe
from dstnet.simulation.settings import SimulationSettings
from dstnet.structure import read_structure
from dstnet.training import TrainingSettings
from dstnet.training.finetune import FinetuneSettings

SHAPE = (32, 40)
COUNTS = np.random.default_rng(0).poisson(3.0, (3, *SHAPE)).astype(np.uint16)
FEW = 5  # frames that are read of a movie
ATOM = "ATOM  {:5d}  CA  ALA A{:4d}    {:8.3f}{:8.3f}{:8.3f}  1.00 20.00           C\n"
CIF = (
    "data_a\nloop_\n_atom_site.group_PDB\n_atom_site.id\n_atom_site.type_symbol\n"
    "_atom_site.label_atom_id\n_atom_site.label_alt_id\n_atom_site.label_comp_id\n"
    "_atom_site.label_asym_id\n_atom_site.label_seq_id\n_atom_site.Cartn_x\n_atom_site.Cartn_y\n"
    "_atom_site.Cartn_z\n_atom_site.occupancy\n_atom_site.B_iso_or_equiv\n"
)
RELION_31 = (
    "# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n"
    "_rlnMicrographOriginalPixelSize #3\n_rlnVoltage #4\n_rlnSphericalAberration #5\n"
    "_rlnAmplitudeContrast #6\nopticsGroup1 1 2.0 300 2.7 0.1\nopticsGroup2 2 1.5 200 0.01 0.07\n"
    "\ndata_movies\n\nloop_\n_rlnMicrographMovieName #1\n_rlnOpticsGroup #2\nm.mrc 1\n./n.mrc 2\n"
)
RELION_30 = (
    "data_\n\nloop_\n_rlnMicrographMovieName #1\n_rlnVoltage #2\n_rlnDetectorPixelSize #3\n"
    "_rlnMagnification #4\n_rlnMicrographDoseRate #5\nm.mrc 300 5 25000 1.5\n'n.mrc' 300 5 9e3 1\n"
)
CORRECTED = (
    "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnMicrographPixelSize\n_rlnVoltage\n1 2.0 300\n\n"
    "data_micrographs\n\nloop_\n_rlnMicrographName\n_rlnMicrographMetadata\n_rlnOpticsGroup\n"
    "m.mrc motion.star 1\n"
)
TILTS = (
    "data_global\n\nloop_\n_rlnTomoName\n_rlnTomoTiltSeriesStarFile\n_rlnVoltage\n"
    "_rlnMicrographOriginalPixelSize\nts1 tilts.star 300 2.0\n"
)
TILT = (
    "data_ts1\n\nloop_\n_rlnMicrographMovieName\n_rlnMicrographPreExposure\n"
    "_rlnTomoNominalStageTiltAngle\nm.mrc 0 0.0\nn.mrc 3.1 -3.0\n"
)
YAML = {
    EnhancementSettings: "model: tiny\ntile: 256\noverlap: 64\nalignment: {patches: 0, bin: 1.5}\n",
    AlignmentSettings: "patches: 5\nmax_shift_angstrom: 40\nbin: 2\npre_aligned: false\n",
    CorrectionSettings: "gain_rotate: 90\ngain_flip: up-down\nfind_defects: true\n",
    SimulationSettings: "shape: [128, 128]\nframes: 3\noptics: {voltage_kv: 200, cs_mm: 2.7}\n",
    Recipe: "structures: [phantom:1]\nmovies: 2\nvary: {pixel_size_angstrom: [1.0, 2.0]}\n",
    TrainingSettings: "steps: 3\nlearning_rate: 1.0e-3\nnetwork: {width: 8}\nheld_out: [a, b]\n",
    FinetuneSettings: "steps: 9\ncrop: 64\nheld_out: 0.5\nfrozen: [a]\n",
}


def _read_movie(path: Path) -> None:
    movie = open_movie(path, pixel_size_angstrom=2.0, eer=EerSettings(frames_per_fraction=2))
    for number in range(min(len(movie), FEW)):
        movie.frame(number)


def _read_own_pixel(path: Path) -> None:
    open_movie(path)


def _movies(folder: Path) -> dict[str, Kind]:
    """Movies of every format and mode."""
    kinds = {}

    def add(name: str, write: Callable[[Path], object], read: Callable = _read_movie) -> None:
        path = folder / name
        write(path)
        kinds[f"movie {name}"] = Kind(path, read)

    modes = {"int8": np.int8, "int16": np.int16, "float32": np.float32, "uint16": np.uint16}
    for name, kind in {**modes, "float16": np.float16}.items():
        frames = COUNTS.astype(kind)
        add(f"{name}.mrc", lambda path, f=frames: write_mrc(path, f, 2.0, "x", stack=True))

    def big_endian(path: Path) -> None:
        with mrcfile.new(path, overwrite=True) as file:
            file.set_data(COUNTS.astype(">i2"))
            file.set_extended_header(np.zeros(64, "V1"))

    def packed(path: Path) -> None:
        write_mrc(path, COUNTS.astype(np.int8), 2.0, "x", stack=True)
        content = bytearray(path.read_bytes())
        content[12:16] = (101).to_bytes(4, "little")
        path.write_bytes(content[:1024] + content[1024::2])

    add("big.mrc", big_endian)
    add("packed.mrc", packed)
    add("own.mrc", lambda path: write_mrc(path, COUNTS, 2.0, "x", stack=True), _read_own_pixel)
    whole = (folder / "uint16.mrc").read_bytes()
    packers = {
        "gz": gzip.compress,
        "bz2": bz2.compress,
        "xz": lzma.compress,
        "zst": imagecodecs.zstd_encode,
    }
    for suffix, pack in packers.items():
        add(f"uint16.mrc.{suffix}", lambda path, p=pack: path.write_bytes(p(whole)))
    forms = {
        "plain": {"resolution": (5, 5), "description": "unit=nm\n"},
        "lzw": {"compression": "lzw", "predictor": 2},
        "zlib": {"compression": "zlib", "rowsperstrip": 5},
        "big": {"compression": "zstd", "bigtiff": True},
        "tiled": {"compression": "lzw", "tile": (16, 16)},
        "other order": {"byteorder": ">", "rowsperstrip": 8},
    }
    for name, form in forms.items():
        options = {"photometric": "minisblack", **form}
        add(f"{name}.tif", lambda path, o=options: tifffile.imwrite(path, COUNTS, **o))
    halves = np.random.default_rng(1).poisson(1.0, (3, 64, 72)).clip(0, 15).astype(np.uint8)
    pairs = halves[..., ::2] | halves[..., 1::2] << 4
    add("4bit.tif", lambda p: tifffile.imwrite(p, pairs, photometric="minisblack"))
    for name, bits in {"7": (7, 2, 2), "8": (8, 2, 2)}.items():
        rng = np.random.default_rng(0)
        events = [random_events(rng, SHAPE, 0.1) for _ in range(4)]
        streams = [encode(one, SHAPE, *bits) for one in events]
        code = 65000 if name == "8" else 65001
        options = {"compression": code, "pixel_size_m": 1e-10}
        add(f"{name}.eer", lambda p, s=streams, o=options: write_eer(p, s, SHAPE, **o))
    return kinds


def _references(folder: Path) -> dict[str, Kind]:
    """Gains, darks, defects."""
    gain = np.random.default_rng(2).normal(1, 0.05, SHAPE).astype(np.float32)
    write_mrc(folder / "gain.mrc", gain, 2.0, "x")
    tifffile.imwrite(folder / "gain.gain", gain, compression="zlib")
    tifffile.imwrite(folder / "dark.tif", gain, compression="lzw")
    images = dm4_image(gain[::8, ::8].astype(np.uint16)), dm4_image(gain)
    listed = dm4_folder("ImageList", *images)
    head = (4).to_bytes(4, "big") + len(listed).to_bytes(8, "big") + (1).to_bytes(4, "big")
    (folder / "gain.dm4").write_bytes(head + b"\0\0" + (1).to_bytes(8, "big") + listed)
    (folder / "defects.txt").write_text("# x y width height\n0 0 2 3\n\n 10 4 1 20\n")
    tifffile.imwrite(folder / "defects.tif", (gain > 1.1).astype(np.uint8))
    readers = {
        "gain.mrc": read_gain,
        "gain.gain": read_gain,
        "dark.tif": read_dark,
        "gain.dm4": read_gain,
        "defects.txt": read_defects,
        "defects.tif": read_defects,
    }
    return {f"reference {name}": Kind(folder / name, read) for name, read in readers.items()}


def _tables(folder: Path) -> dict[str, Kind]:
    """STAR files of every dialect, lists, motion."""
    for name in ("m.mrc", "n.mrc"):
        write_mrc(folder / name, COUNTS, 2.0, "x", stack=True)
    motion = Motion(torch.arange(6.0).reshape(3, 2), torch.ones(3, 2, 5))
    described = RelionMovie((64, 80), 2.0, "m.mrc", 1.0)
    tables = {**motion.to_relion(described)}
    write_star(folder / "motion.star", tables, float_format="%.9g")
    contents = {"31": RELION_31, "30": RELION_30, "corrected": CORRECTED, "tilt": TILTS}
    kinds = {}

    def opened(path: Path, argument: str) -> None:
        for found in read_inputs([argument]):
            with contextlib.suppress(BadInputError):
                _ = found.optics
            str(path)

    for name, content in contents.items():
        path = folder / f"{name}.star"
        path.write_text(content)
        kinds[f"table {name}"] = Kind(path, lambda p: opened(p, str(p)))
    (folder / "tilts.star").write_text(TILT)
    kinds["table of tilts"] = Kind(
        folder / "tilts.star", lambda p: opened(p, str(folder / "tilt.star"))
    )
    (folder / "l.txt").write_text("# movies\nm.mrc\n./n.mrc\n'm.mrc'\n")
    kinds["list"] = Kind(folder / "l.txt", lambda p: opened(p, f"@{p}"))
    kinds["table, plain"] = Kind(folder / "31.star", read_star)
    movie = Movie(np.ones((3, 64, 80), np.uint8), 2.0, str(folder / "m.mrc"))
    source = InputMovie(folder / "m.mrc", "m")
    kinds["motion"] = Kind(
        folder / "motion.star", lambda p: imported_motion(p, source, movie).motion
    )
    kinds["motion, tables"] = Kind(folder / "motion.star", read_tables)
    kinds["motion of corrected"] = Kind(
        folder / "corrected.star", lambda p: imported_motion(p, source, movie)
    )
    return kinds


def _settings(folder: Path) -> dict[str, Kind]:
    kinds = {}
    for model, text in YAML.items():
        path = folder / f"{model.__name__}.yaml"
        path.write_text(text)
        read = (lambda p: Recipe.named(str(p)).settings_of(3)) if model is Recipe else None
        kinds[f"settings {model.__name__}"] = Kind(path, read or model.from_yaml)
    return kinds


def _structures(folder: Path) -> dict[str, Kind]:
    places = [(1.5 * i, 0.7 * i, -0.3 * i) for i in range(1, 9)]
    pdb = "".join(ATOM.format(i, i, *place) for i, place in enumerate(places, 1))
    cif = CIF + "".join(
        f"ATOM {i} C CA . ALA A {i} {x:.3f} {y:.3f} {z:.3f} 1.00 20.00\n"
        for i, (x, y, z) in enumerate(places, 1)
    )
    (folder / "a.pdb").write_text(pdb)
    (folder / "a.cif").write_text(cif)
    (folder / "a.cif.gz").write_bytes(gzip.compress(cif.encode()))
    z, y, x = np.mgrid[-8:8, -8:8, -8:8]
    density = np.exp(-(z**2 + y**2 + x**2) / 18).astype(np.float32)
    for name in ("a.map", "a.map.gz"):
        with mrcfile.new(
            folder / name, compression="gzip" if name[-1] == "z" else None, overwrite=True
        ) as file:
            file.set_data(density)
            file.set_volume()
            file.voxel_size = 2.0
    kinds = {
        f"structure {n}": Kind(folder / n, read_structure) for n in ("a.pdb", "a.cif", "a.cif.gz")
    }
    for name in ("a.map", "a.map.gz"):
        kinds[f"map {name}"] = Kind(folder / name, lambda p: potential_from_map(p, 3.0))
    return kinds


def made(folder: Path) -> dict[str, Kind]:
    """All kinds by name, with good files in `folder`."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    makers = (
        _movies,
        _references,
        _tables,
        _settings,
        mutated_runs.networks,
        mutated_runs.records,
        _structures,
        mutated_runs.simulated,
    )
    kinds: dict[str, Kind] = {}
    for make in makers:
        own = folder / make.__name__.strip("_")
        own.mkdir(exist_ok=True)
        kinds |= make(own)
    return kinds
