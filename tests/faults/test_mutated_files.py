"""Files of every kind that the command reads beside movies, mutated: one line, never a trace."""

import copy
import json
import random
import shutil

import numpy as np
import pytest

from dstnet.cli import main
from dstnet.errors import BadInputError
from dstnet.io import write_mrc
from dstnet.structure.atoms import read_structure

OPTIONS = ("--dose-per-frame", "1", "--patches", "0", "--no-check-references", "--threads", "1")
ODD = (None, 1, -1, "x", [], {}, float("nan"), True, 10**30, "../../x", [None], {"a": 1}, "\0")
STAR = (
    "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnMicrographOriginalPixelSize\n_rlnVoltage\n"
    "1 2.0 300\n\ndata_movies\n\nloop_\n_rlnMicrographMovieName\n_rlnOpticsGroup\nm.mrc 1\n"
)
SETTINGS = "steps: 3\nlearning_rate: 1.0e-3\nnetwork: {width: 8}\nheld_out: [a, b]\n"
PIECES = (b"\0", b"\xff", b"\n", b"'", b'"', b"#", b"abc", b"[", b"{", b"1e999", b"!!bool x", b"*")


def places(value, before=()):
    """All keys into nested JSON."""
    if before:
        yield before
    if isinstance(value, dict):
        inner = value.items()
    else:
        inner = enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from places(part, (*before, key))


def damaged(value, generator):
    """JSON with one key changed or missing."""
    value = copy.deepcopy(value)
    *path, last = generator.choice(list(places(value)))
    part = value
    for key in path:
        part = part[key]
    if generator.random() < 0.4:
        del part[last]
    else:
        part[last] = generator.choice(ODD)
    return value


def mutated(content, generator):
    """Bytes cut, changed or with something put between."""
    for _ in range(generator.randint(1, 3)):
        at = generator.randrange(len(content) + 1)
        cut = generator.randrange(0, 12)
        content = content[:at] + generator.choice(PIECES) + content[at + cut :]
    return content[: generator.randrange(1, len(content) + 1)] if at % 4 == 0 else content


@pytest.fixture
def ends_in_words(capsys, monkeypatch, tmp_path):
    """Runs the command; whatever it makes of its files, it says it in words."""
    monkeypatch.chdir(tmp_path)
    frames = np.random.default_rng(0).poisson(2.0, (3, 48, 48)).astype(np.float32)
    write_mrc(tmp_path / "m.mrc", frames, 2.0, "x", stack=True)

    def run(seed, *arguments):
        print("seed", seed)
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        said = "".join(capsys.readouterr())
        assert ended.value.code in (0, 1, 2), (seed, said)
        assert "Traceback" not in said and "please report" not in said, (seed, said)

    return run


def test_records(ends_in_words, tmp_path):
    ends_in_words(None, "align", "m.mrc", "-o", "whole", *OPTIONS)
    provenance = json.loads((tmp_path / "whole" / "provenance.json").read_text())
    (journal,) = (tmp_path / "whole" / "records").glob("*.jsonl")
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for seed in range(30):
        generator = random.Random(seed)
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        shutil.copytree(tmp_path / "whole", tmp_path / "out")
        if seed % 2:
            text = json.dumps(damaged(provenance, generator))
            (tmp_path / "out" / "provenance.json").write_text(text)
        else:
            text = "\n".join(json.dumps(damaged(line, generator)) for line in lines)
            (tmp_path / "out" / "records" / journal.name).write_text(text)
            bare = {**provenance, "movies": []}
            (tmp_path / "out" / "provenance.json").write_text(json.dumps(bare))
        ends_in_words(seed, "align", "m.mrc", "-o", "out", *OPTIONS)


@pytest.mark.parametrize(("name", "content"), [("t.star", STAR), ("l.txt", "m.mrc\n./m.mrc\n")])
def test_tables_and_lists(ends_in_words, tmp_path, name, content):
    argument = name if name.endswith(".star") else f"@{name}"
    for seed in range(25):
        (tmp_path / name).write_bytes(mutated(content.encode(), random.Random(seed)))
        ends_in_words(seed, "align", argument, "-o", f"out{seed}", *OPTIONS)


def test_settings(ends_in_words, tmp_path):
    for seed in range(60):
        content = mutated(SETTINGS.encode(), random.Random(seed))
        (tmp_path / "s.yaml").write_bytes(content + b"\nno_such_name: 1\n")
        ends_in_words(seed, "train", "-o", "out", "--settings", "s.yaml", "--device", "cpu")


def test_cards(ends_in_words, tmp_path):
    card = json.dumps({"architecture": "dstnet", "network": {"width": 8}, "trained": {}})
    (tmp_path / "w.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    for seed in range(15):
        (tmp_path / "w.json").write_bytes(mutated(card.encode(), random.Random(seed)))
        ends_in_words(seed, "enhance", "m.mrc", "-o", "out", "--model", "w.safetensors", *OPTIONS)


def test_structures(tmp_path):
    atom = "ATOM  %5d  CA  ALA A%4d    %8.3f%8.3f%8.3f  1.00 20.00           C\n"
    content = "".join(atom % (i, i, 1.5 * i, 0.7 * i, -0.3 * i) for i in range(1, 9)).encode()
    for seed in range(300):
        (tmp_path / "a.pdb").write_bytes(mutated(content, random.Random(seed)))
        print("seed", seed)
        try:
            atoms = read_structure(tmp_path / "a.pdb")
        except BadInputError:
            continue
        assert np.isfinite(atoms.positions_angstrom).all()
