"""What is put on record is read again, also what version 0.7 wrote; other results are refused."""

import json

import pytest

from dstnet.errors import OutputError
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
    assert records.recorded and list(records.earlier) == ["a"]
    records.add(Record.from_json(FAILED))
    records.refresh()
    stored = json.loads((tmp_path / "provenance.json").read_text())
    assert stored["movies"] == [DONE, FAILED] and stored["failures"] == {"b.mrc": "b.mrc is empty"}
    assert not (tmp_path / "micrographs.star").exists(), "its files are not there"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"movies": 3}', '{"movies": []}'])
def test_no_record_of_a_run(tmp_path, text):
    (tmp_path / "provenance.json").write_text(text)
    assert read_records(tmp_path).made_with is None
