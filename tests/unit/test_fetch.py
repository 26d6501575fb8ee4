"""Entries of the Protein Data Bank, from a server on this machine that stands for it."""

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import gemmi
import pytest

from dstnet.errors import BadInputError, OutputError
from dstnet.structure import fetch_structure, read_structure
from dstnet.structure.fetch import CHECKSUMS, cache_folder

LINES = (
    "TITLE     A TINY PAIR OF ATOMS",
    "ATOM      1  N   ALA A   1       1.000   2.000   3.000  1.00 20.00           N",
    "ATOM      2  CA  ALA A   1       2.000   2.000   3.000  1.00 20.00           C",
    "END",
)


class Archive(HTTPServer):
    """Files by their path; what it was asked for."""

    files: dict[str, bytes]
    asked: list[str]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/download"


class Answer(BaseHTTPRequestHandler):
    server: Archive

    def do_GET(self) -> None:
        name = self.path.rpartition("/")[2]
        self.server.asked.append(name)
        if name == "5SLO.cif.gz":
            time.sleep(1.0)
        if name == "5ERR.cif.gz":
            self.send_error(503)
            return
        content = self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        missing = 50 if name == "5CUT.cif.gz" else 0
        self.send_header("Content-Length", str(len(content) + missing))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def entry() -> bytes:
    document = gemmi.read_pdb_string("\n".join(LINES)).make_mmcif_document()
    return gzip.compress(document.as_string().encode())


@pytest.fixture
def archive(tmp_path, monkeypatch) -> Iterator[Archive]:
    """A server with some entries; the cache is a folder of the test's own."""
    monkeypatch.setenv("DSTNET_CACHE", str(tmp_path / "cache"))
    with Archive(("127.0.0.1", 0), Answer) as server:
        server.asked = []
        server.files = {
            "1ABC.cif.gz": entry(),
            "5CUT.cif.gz": entry(),
            "5SLO.cif.gz": entry(),
            "3ABC.cif.gz": entry()[:100],
            "4ABC.cif.gz": gzip.compress(b"<html>sign in</html>"),
            "5ABC.cif.gz": b"",
        }
        monkeypatch.setenv("DSTNET_PDB_ARCHIVES", server.address)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def no_address() -> str:
    """Of a server that is not there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*")) if folder.is_dir() else []


def test_an_entry_is_fetched_once(archive, tmp_path, monkeypatch):
    path = fetch_structure("1Abc")
    assert path == tmp_path / "cache" / "1abc.cif.gz"
    assert len(read_structure(path)) == 2
    assert read_structure(path).title == "A TINY PAIR OF ATOMS"
    monkeypatch.setenv("DSTNET_PDB_ARCHIVES", no_address())  # the network is gone
    assert fetch_structure("1abc") == path
    assert archive.asked == ["1ABC.cif.gz"]
    assert left(tmp_path / "cache") == ["1abc.cif.gz", CHECKSUMS]


def test_no_identifier_is_asked_for_nowhere(archive):
    with pytest.raises(BadInputError, match="no PDB identifier"):
        fetch_structure("../../etc/passwd")
    assert archive.asked == []


def test_an_entry_that_is_not_there(archive, tmp_path):
    with pytest.raises(BadInputError, match="there is no PDB entry 2abc"):
        fetch_structure("2abc")
    assert left(tmp_path / "cache") == []


@pytest.mark.parametrize("name", ["3abc", "4abc", "5abc"])
def test_what_is_no_complete_entry_is_not_kept(archive, tmp_path, name):
    with pytest.raises(BadInputError, match="no complete mmCIF file"):
        fetch_structure(name)
    assert left(tmp_path / "cache") == []


@pytest.mark.parametrize("name", ["5cut", "5err", "5slo"])
def test_a_bad_network_is_told_in_a_line(archive, tmp_path, name):
    """A connection that breaks, a server out of order, and one that is too slow."""
    with pytest.raises(BadInputError, match=r"check the network.*cache/5.*yourself") as caught:
        fetch_structure(name, timeout_s=0.3)
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)
    assert left(tmp_path / "cache") == []


def test_without_network_the_file_to_put_is_named(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("DSTNET_PDB_ARCHIVES", no_address())
    with pytest.raises(BadInputError) as caught:
        fetch_structure("1abc")
    path = tmp_path / "cache" / "1abc.cif.gz"
    assert f"put the entry's mmCIF file at {path}" in str(caught.value)
    path.write_bytes(entry())
    assert fetch_structure("1abc") == path


def test_mirrors_are_tried_in_their_order(archive):
    assert fetch_structure("1abc", [no_address(), archive.address]).is_file()


def test_a_file_that_changed_is_not_used(archive, tmp_path):
    path = fetch_structure("1abc")
    path.write_bytes(entry()[:-9] + bytes(9))
    with pytest.raises(BadInputError, match="not the file that was first used"):
        fetch_structure("1abc")
    path.unlink()
    assert fetch_structure("1abc").read_bytes() == archive.files["1ABC.cif.gz"]


def test_a_shared_cache_that_cannot_be_written_serves(archive, tmp_path, monkeypatch):
    """What somebody put there is used, though its checksum cannot be kept."""
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "1abc.cif.gz").write_bytes(entry())
    (cache / CHECKSUMS).mkdir()  # permissions do not hold an administrator back
    assert fetch_structure("1abc") == cache / "1abc.cif.gz"
    assert archive.asked == []


def test_checksums_that_cannot_be_read_are_named(archive, tmp_path):
    path = fetch_structure("1abc")
    path.with_name(CHECKSUMS).write_bytes(b"\xff\xfe\n")
    with pytest.raises(BadInputError, match=r"checksums\.txt.*delete it"):
        fetch_structure("1abc")


def test_a_cache_that_cannot_be_written_is_told(archive, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DSTNET_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="a file, not a folder"):
        fetch_structure("1abc")


def test_the_cache_lies_where_the_platform_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.delenv("DSTNET_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "l"))
    for platform, folder in (("linux", tmp_path / "x"), ("win32", tmp_path / "l")):
        monkeypatch.setattr("sys.platform", platform)
        assert cache_folder() == folder / "dstnet"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder().parts[-3:] == ("Library", "Caches", "dstnet")
