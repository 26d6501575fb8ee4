"""RELION reads the list of movies that dstnet simulate writes, and writes the same list itself."""

import subprocess

import pytest
import starfile
from oracles import relion
from tiny import dstnet


def run(name: str, *arguments: str, cwd) -> None:
    """Run a program of RELION."""
    done = subprocess.run(
        [relion(name), *arguments], cwd=cwd, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.oracle
@pytest.mark.parametrize("format", ["tif", "mrc"])
def test_relion_reads_the_list_and_the_movies(capsys, tmp_path, format):
    out = tmp_path / "out"
    small = [
        "--shape",
        "256",
        "256",
        "--frames",
        "6",
        "--dose-per-frame",
        "1",
        "--format",
        format,
        "--device",
        "cpu",
    ]
    assert dstnet(capsys, "simulate", "-o", out, "--pixel-size", "3", *small)[0] == 0

    (out / "Import").mkdir()  # neither program makes it
    told = ["--angpix", "3", "--kV", "300", "--Cs", "2.7", "--Q0", "0.07"]
    run(
        "relion_import",
        "--do_movies",
        "--i",
        "movies/*",
        "--odir",
        "Import/",
        "--ofile",
        "movies.star",
        *told,
        cwd=out,
    )
    ours, theirs = (
        starfile.read(path, always_dict=True)
        for path in (out / "movies.star", out / "Import" / "movies.star")
    )
    assert ours.keys() == theirs.keys() == {"optics", "movies"}
    for block in ours:
        assert ours[block].to_dict("list") == theirs[block].to_dict("list"), (
            "names, values and their order"
        )

    assert dstnet(capsys, "simulate", "-o", out, "--pixel-size", "4", "--seed", "1", *small)[0] == 0
    run(
        "relion_run_motioncorr",
        "--i",
        "movies.star",
        "--o",
        "Motion/",
        "--use_own",
        "--j",
        "1",
        cwd=out,
    )
    corrected = starfile.read(out / "Motion" / "corrected_micrographs.star", always_dict=True)
    pixels = corrected["optics"].set_index("rlnOpticsGroup")["rlnMicrographOriginalPixelSize"]
    micrographs = corrected["micrographs"]
    assert all((out / name).is_file() for name in micrographs["rlnMicrographName"])
    found = {
        name[-9:-4]: pixels[group]
        for name, group in micrographs[["rlnMicrographName", "rlnOpticsGroup"]].itertuples(
            index=False
        )
    }
    assert found == {"00000": 3.0, "00001": 4.0}
