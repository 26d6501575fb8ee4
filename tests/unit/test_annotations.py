"""Picks of all kinds of files, on the pixels of a movie."""

import json

import numpy as np
import pytest

from dstnet.errors import BadInputError
from dstnet.evaluation.annotations import annotation_file, read_annotation
from dstnet.movie import Movie

CENTRES = [(10.0, 250.0), (150.0, 20.0), (90.5, 299.0)]  # (y, x)
SHAPE = (200, 300)


def movie(pixel: float = 2.0) -> Movie:
    return Movie(np.zeros((1, *SHAPE), np.float32), pixel, "somewhere/mic_07.mrc")


def star(pixel: float | None, scale: float = 1.0, names: tuple[str, ...] = ()) -> str:
    text = ""
    if pixel is not None:
        text += "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnMicrographPixelSize #2\n"
        text += f"1 {pixel}\n\n\n"
    text += "data_particles\n\nloop_\n_rlnCoordinateY #1\n_rlnCoordinateX #2\n"
    text += "_rlnMicrographName #3\n" if names else ""
    lines = [f"{y * scale} {x * scale}" for y, x in CENTRES]
    if not names:
        return text + "\n".join(lines) + "\n"
    own = [f"{line} {names[0]}" for line in lines]
    return text + "\n".join([*own, *(f"5 5 {other}" for other in names[1:])]) + "\n"


FILES = {
    "mic_07_picks.csv": "x,y\n" + "\n".join(f"{x},{y}" for y, x in CENTRES),
    "mic_07.csv": "\n".join(f"{x}; {y}; 0.9" for y, x in CENTRES),
    "mic_07_picks.tsv": "Y\tX\tscore\n" + "\n".join(f"{y}\t{x}\t1" for y, x in CENTRES),
    "mic_07.txt": "\n".join(f"{x} {y}" for y, x in CENTRES),
    "mic_07_picks.star": star(None),
    "mic_07_autopick.star": star(2.0),
    "mic_07_manualpick.star": star(4.0, 0.5),
    "mic_07.box": "\n".join(f"{x - 20} {y - 15} 40 30 -3" for y, x in CENTRES),
    # One for all micrographs: RELION's, CryoPPP's with CryoSPARC's number before the name, Topaz's
    "run_data.star": star(2.0, names=("Job/job003/mic_07.mrc", "mic_077.mrc")),
    "10017_particles_selected.csv": (
        "Micrographs Filename,X-Coordinate,Y-Coordinate,Class Number,Diameter\n"
        + "".join(
            f"000123456789012345678_mic_07_patch_aligned_doseweighted.mrc,{x},{y},1,75\n"
            for y, x in CENTRES
        )
        + "mic_08.mrc,5,5,1,75\n"
    ),
    "extracted.csv": "image_name,x_coord,y_coord\n"
    + "".join(f"mic_07,{x},{y}\n" for y, x in CENTRES)
    + "mic_7,1,1\n",
}


@pytest.mark.parametrize("name", FILES)
def test_picks_of_every_kind_lie_where_they_were_made(tmp_path, name):
    (tmp_path / name).write_text(FILES[name])
    path = annotation_file(tmp_path, "mic_07")
    assert path == tmp_path / name
    found = read_annotation(path, 150.0, movie())
    assert np.allclose(found.centres_px, CENTRES)
    assert found.diameter_angstrom == 150.0
    assert bool(found.notes) is ("4.0" in FILES[name])
    assert not found.notes or "4 Å/pixel, scaled to 2 Å/pixel" in found.notes[0]


def test_each_micrograph_has_the_pixel_size_of_its_optics_group(tmp_path):
    path = tmp_path / "all.star"
    path.write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnMicrographPixelSize #2\n1 1.0\n2 4.0\n\n"
        "data_particles\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n_rlnMicrographName #3\n"
        "_rlnOpticsGroup #4\n20 30 a/mic_06.mrc 1\n20 30 a/mic_07.mrc 2\n"
    )
    assert read_annotation(path, 100.0, movie()).centres_px.tolist() == [[60.0, 40.0]]


def test_no_file_is_none_and_another_movies_is_not_taken(tmp_path):
    (tmp_path / "mic_071_picks.csv").write_text("x,y\n1,1\n")
    (tmp_path / "all.star").write_text(star(2.0, names=("mic_071.mrc",)))
    assert annotation_file(tmp_path, "mic_07") is None


def test_the_diameter_is_told_or_stands_beside_or_in_the_file(tmp_path):
    path = tmp_path / "mic_07.csv"
    path.write_text("X-Coordinate,Y-Coordinate,Diameter\n40,30,75\n")
    assert read_annotation(path, None, movie()).diameter_angstrom == 150.0
    (tmp_path / "set.json").write_text(json.dumps({"diameter_angstrom": 120}))
    assert read_annotation(path, None, movie()).diameter_angstrom == 120.0
    assert read_annotation(path, 90.0, movie()).diameter_angstrom == 90.0
    (tmp_path / "set.json").write_text('{"diameter_angstrom": -1}')
    with pytest.raises(BadInputError, match=r"set\.json: diameter_angstrom is -1\.0"):
        read_annotation(path, None, movie())
    (tmp_path / "set.json").unlink()
    path.write_text("x,y\n40,30\n")
    with pytest.raises(BadInputError, match="pass --diameter"):
        read_annotation(path, None, movie())


def test_a_few_picks_outside_are_said_and_many_refused(tmp_path):
    path = tmp_path / "mic_07.csv"
    inside = [(x, y) for x in range(10, 300, 30) for y in range(10, 200, 40)]
    rows = [*inside, (301, 20), (20, -2)]
    path.write_text("\n".join(f"{x},{y}" for x, y in rows))
    found = read_annotation(path, 100.0, movie())
    assert len(found.centres_px) == len(inside)
    assert "2 of 52 picks lie outside the field" in found.notes[0]
    path.write_text("\n".join(f"{2 * x},{2 * y}" for x, y in inside))
    with pytest.raises(BadInputError, match="of 50 picks lie outside the field of 300 x 200"):
        read_annotation(path, 100.0, movie())
    path.write_text("\n".join(f"{x / 2},{y / 2}" for x, y in inside))
    with pytest.raises(BadInputError, match="as those of a binned image do"):
        read_annotation(path, 100.0, movie())


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "x,y\n", "holds no picks of mic_07"),
        ("m.csv", "", "holds no picks of mic_07"),
        ("m.csv", "a,b\n1,2\n", "has no columns x and y"),
        ("m.csv", "x,y\n1,two\n", "'two' is no number"),
        ("m.csv", "x,y\n1\n", "too few cells"),
        ("m.csv", "x,y\nnan,3\n", "not finite"),
        ("m.box", "1 2 3\n", "is no box"),
        ("m.star", "data_\n\nloop_\n_rlnDefocusU #1\n3\n", "no rlnCoordinateX"),
        ("m.star", star(2.0, names=("other.mrc",)), "holds no picks of mic_07"),
    ],
)
def test_what_is_no_table_of_picks_is_refused_in_a_line(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(BadInputError, match=message) as caught:
        read_annotation(path, 100.0, movie())
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_the_shared_specimens_are_read_as_they_are(data_folder):
    folder = data_folder / "real" / "trpv1"
    path = min(folder.glob("*_picks.csv"))
    name = path.name.removesuffix("_picks.csv")
    field = Movie(np.zeros((1, 1024, 1024), np.float32), 4.56, f"{name}.mrc")
    found = read_annotation(annotation_file(folder, name), None, field)
    assert found.diameter_angstrom == 130 and not found.notes
    expected = np.loadtxt(path, delimiter=",", skiprows=1)[:, ::-1]
    assert np.array_equal(found.centres_px, expected)
