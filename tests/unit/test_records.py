"""What is put on record is read again, also what version 0.7 wrote; other results are refused."""

import json

import pytest
import starfile

from dstnet.errors import OutputError
from dstnet.pipeline.journal import read_on
from dstnet.pipeline.micrographs_star import Micrograph, write_micrographs_star
from dstnet.pipeline.record import MadeWith, Record
from dstnet.pipeline.records import Records, read_records

# As `dstnet enhance` of 0.7.0 wrote it.
MADE_WITH = {
    "version": "0.7.0",
    "weights": "dstnet-3",
    "weights_sha256": "fcd6",
    "settings": {"model": "dstnet-3", "fractions": None, "alignment": {"patches": 5}},
    "eer": {"frames_per_fraction": 40},
    "correction": None,
    "half_precision_files": False,
}
DONE = {
    "input": "in/a.tif",
    "name": "a",
    "status": "done",
    "frames": 3,
    "pixel_size_angstrom": 2.0,
    "exposure_per_frame_e_per_a2": 1.5,
    "pre_exposure_e_per_a2": 0.0,
    "voltage_kv": 300.0,
    "gain": None,
    "defects": None,
    "motion_from": None,
    "output_pixel_size_angstrom": 2.0,
    "shifts_angstrom": [[0.5, 0.0], [0.0, 1.25], [-0.5, -1.25]],
    "accumulated_motion_angstrom": [3.5, 1.25, 2.25],
    "notes": ["local motion of 0.1 Å rms"],
    "files": {"aligned": "micrographs/a_aligned.mrc", "motion": "micrographs/a.star"},
    "optics": {"rlnOpticsGroup": 2, "rlnVoltage": 300.0, "rlnOpticsGroupName": "beam"},
    "seconds": 1.5,
    "cpu_seconds": 1.25,
    "threads": 1,
    "device": "cpu",
    "peak_memory_bytes": 400000000,
    "time": "2026-01-02T03:04:05.678+00:00",
}
FAILED = {"input": "b.mrc", "name": "b", "status": "failed", "error": "b.mrc is empty", "time": "3"}


def write(folder, movies=(DONE,), journal=()):
    stored = {**MADE_WITH, "written": "now", "failures": {}, "movies": list(movies)}
    (folder / "provenance.json").write_text(json.dumps(stored))
    (folder / "records").mkdir()
    lines = [json.dumps(MADE_WITH), *map(json.dumps, journal)]
    (folder / "records" / "1.jsonl").write_text("\n".join(lines))


@pytest.mark.parametrize("values", [DONE, FAILED, {**DONE, "status": "failed", "error": "no"}])
def test_a_record_is_read_as_it_was_written(values):
    assert json.loads(json.dumps(Record.from_json(values).to_json())) == values


def test_parts_stand_apart():
    record = Record.from_json(DONE)
    assert record.source is not None and record.source.total_exposure_e_per_a2 == 4.5
    assert record.results is not None and record.results.optics["rlnOpticsGroup"] == 2
    assert record.results.motion_in_words() == "3.5 Å (early 1.2, late 2.2)"
    assert Record.from_json(FAILED).source is None


@pytest.mark.parametrize("values", [{}, {"name": "a"}, {**DONE, "status": "lost"}])
def test_what_is_no_record_is_passed_over(tmp_path, values):
    write(tmp_path, journal=[values, {**FAILED, "time": "2"}, FAILED, {**FAILED, "time": "1"}])
    stored = read_records(tmp_path)
    assert stored.made_with == MadeWith.model_validate(MADE_WITH)
    assert list(stored.records) == ["a", "b"] and stored.records["b"].time == "3"


def test_results_of_another_version_are_read_and_refused_in_one_line(tmp_path):
    write(tmp_path)
    assert read_records(tmp_path).records["a"].results is not None
    other = MadeWith.model_validate({**MADE_WITH, "version": "0.8.0", "settings": {"groups": 5}})
    with pytest.raises(OutputError, match="other version and settings; pass --overwrite"):
        Records(tmp_path, other, overwrite=False)
    assert Records(tmp_path, other, overwrite=True).earlier == {}


def test_the_same_again_goes_on(tmp_path):
    write(tmp_path)
    records = Records(tmp_path, MadeWith.model_validate(MADE_WITH), overwrite=False)
    assert list(records.earlier) == ["a"]
    records.add(Record.from_json(FAILED))
    records.refresh()
    stored = json.loads((tmp_path / "provenance.json").read_text())
    assert stored["movies"] == [DONE, {**FAILED, "run": 1}] and stored["failures"] == {
        "b.mrc": "b.mrc is empty"
    }
    assert not (tmp_path / "micrographs.star").exists(), "its files are not there"


def test_tables_have_what_other_runs_put_on_record_meanwhile(tmp_path):
    """Of runs beside each other each reads anew what the others wrote, and nothing else."""
    made_with = MadeWith.model_validate(MADE_WITH)
    one, two = (Records(tmp_path, made_with, overwrite=False) for _ in range(2))
    for name, records in (("a", one), ("b", two), ("c", one), ("d", two)):
        records.add(Record.from_json({**FAILED, "input": name, "name": name}))
        records.refresh()
    assert list(one.refresh().records) == list("abcd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dstnet.pipeline.records.read_records", None)
        one.add(Record.from_json({**FAILED, "input": "e", "name": "e"}))
        assert list(one.refresh().records) == list("abcde")
    provenance = (tmp_path / "provenance.json").read_text()
    assert provenance == json.dumps(json.loads(provenance), indent=2) + "\n"


def test_a_journal_is_read_on_behind_its_last_complete_line(tmp_path):
    path = tmp_path / "a.ledger"
    path.write_text('{"n": 1}\nno JSON\n{"n":')
    values, end = read_on(path, 0)
    assert values == [{"n": 1}]
    with open(path, "a") as file:
        file.write(' 2}\n{"n": 3}\n')
    assert read_on(path, end)[0] == [{"n": 2}, {"n": 3}]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"movies": 3}', '{"movies": []}'])
def test_no_record_of_a_run(tmp_path, text):
    (tmp_path / "provenance.json").write_text(text)
    assert read_records(tmp_path).made_with is None


def test_the_record_of_a_movie_is_known_by_path_or_when_the_project_was_moved(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"x")
    own = Record.from_json(
        {**DONE, "path": str(tmp_path / "a.tif"), "size_bytes": 5, "modified_ns": 7}
    )
    (tmp_path / "link").symlink_to(tmp_path)
    assert own.is_of(tmp_path / "a.tif", (6, 7)) and own.is_of(tmp_path / "link" / "a.tif", (6, 7))
    assert not own.is_of(tmp_path / "b.tif", (5, 7)), "a copy"
    (tmp_path / "a.tif").unlink()
    assert own.is_of(tmp_path / "b.tif", (5, 7)) and not own.is_of(tmp_path / "b.tif", (5, 8))
    assert Record.from_json(DONE).is_of(tmp_path / "b.tif", (5, 7)), "older ones do not say"


def test_a_movie_is_listed_once_by_its_newest_results(tmp_path):
    def record(name, time, **values):
        return {**DONE, "name": name, "path": "/m/a.tif", "time": time, **values}

    failed = {**FAILED, "path": "/m/a.tif", "name": "c", "input": "/m/a.tif", "time": "3"}
    write(tmp_path, movies=[record("x", "1")], journal=[record("y", "2"), failed])
    stored = read_records(tmp_path)
    assert list(stored.records) == ["c", "x", "y"]
    assert [r.name for r in stored.movies] == ["y"] and [r.name for r in stored.failures] == ["c"]


# The table of micrographs


def optics_groups(folder, *micrographs):
    """The optics groups that a table of these has: (name, number, pixel size) by movie."""
    made = []
    for number, (optics, pixel) in enumerate(micrographs):
        files = {}
        for kind in ("aligned", "motion"):
            files[kind] = folder / f"{number}_{kind}"
        made.append(Micrograph(f"{number}.tif", files, optics, pixel, 2 * pixel, 300.0, (1, 1, 1)))
    write_micrographs_star(folder, made)
    tables = starfile.read(folder / "micrographs.star", parse_as_string=["rlnOpticsGroupName"])
    groups = tables["optics"].set_index("rlnOpticsGroup")
    return [
        (
            groups.loc[number, "rlnOpticsGroupName"],
            number,
            groups.loc[number, "rlnMicrographOriginalPixelSize"],
        )
        for number in tables["micrographs"]["rlnOpticsGroup"]
    ], groups


def test_optics_groups_of_one_name_get_two(tmp_path):
    """RELION joins tables by the names of groups."""
    default = {"rlnOpticsGroupName": "opticsGroup1", "rlnOpticsGroup": 1}
    found, _ = optics_groups(tmp_path, (default, 0.8), (default, 1.2), (default, 0.8))
    assert found[0] == found[2] and found[0][1:] == (1, 0.8) and found[1][1:] == (2, 1.2)
    names = [name for name, _, _ in found]
    assert names[0] != names[1] and all(name.startswith("opticsGroup1_") for name in names)
    again, _ = optics_groups(tmp_path, (default, 1.2), (default, 0.8), (default, 2.0))
    assert [again[1][0], again[0][0]] == names[:2], "whatever else is there"
    alone, _ = optics_groups(tmp_path, (default, 1.2))
    assert alone[0][0] == names[1], "nor does the name of another run's group join with it"
    krios = {**default, "rlnOpticsGroupName": "krios"}
    found, _ = optics_groups(tmp_path, (krios, 0.8), (krios, 1.2))
    assert found[0][0] != found[1][0] and found[0][0].startswith("krios_")


def test_names_of_optics_groups_that_tell_them_apart_are_kept(tmp_path):
    one = {"rlnOpticsGroupName": "krios", "rlnOpticsGroup": 1}
    two = {"rlnOpticsGroupName": "007", "rlnOpticsGroup": 1}
    found, _ = optics_groups(tmp_path, (one, 0.8), (two, 0.8))
    assert found == [("krios", 1, 0.8), ("007", 2, 0.8)]


def test_optics_groups_without_a_name_get_one_by_what_they_are(tmp_path):
    (first, second), _ = optics_groups(tmp_path, ({}, 0.8), ({"rlnOpticsGroup": "abc"}, 1.2))
    (other,), _ = optics_groups(tmp_path, ({}, 1.2))
    assert first[0] != second[0] == other[0]
    assert (first[1], second[1]) == (1, 2)


def test_what_not_all_optics_groups_say_is_left_out(tmp_path):
    """RELION would read 0 for it."""
    known = {"rlnSphericalAberration": 2.7, "rlnAmplitudeContrast": 0.1}
    _, groups = optics_groups(tmp_path, (known, 0.8), ({"rlnAmplitudeContrast": 0.07}, 1.2))
    assert "rlnSphericalAberration" not in groups
    assert groups["rlnAmplitudeContrast"].tolist() == [0.1, 0.07]


def test_texts_of_optics_groups_are_one_word(tmp_path):
    """RELION ends a cell at a blank and knows no quotes: what follows would be other cells."""
    named = {"rlnOpticsGroupName": "my group", "rlnMtfFileName": "mtf k3.star"}
    found, groups = optics_groups(tmp_path, (named, 0.8))
    assert found == [("my%20group", 1, 0.8)]
    assert groups["rlnMtfFileName"].tolist() == ["mtf%20k3.star"]
