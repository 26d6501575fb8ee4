"""What a full disk or a kill leaves of networks and their records is whole, or nothing; see
benchmarks/quality/full_disks.py for real ones.
"""

import errno
import os
import sys
from types import SimpleNamespace

import pytest
from tiny import make_card, make_network, save_model

from dstnet.errors import OutputError
from dstnet.network.weights import load_weights, read_card, save_weights
from dstnet.training import LogRecord
from dstnet.training.records import shorten_log
from dstnet.training.tensorboard import tensorboard_writer


@pytest.fixture
def no_rename(monkeypatch):
    """Weights can be written, but not put in their place."""
    real = os.replace

    def replace(source, target):
        if str(target).endswith(".safetensors"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)


def test_no_card_without_weights(tmp_path, no_rename):
    network = make_network()
    with pytest.raises(OutputError, match="No space left on device; free some space"):
        save_weights(network, make_card(network), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_weights_that_cannot_be_replaced_keep_their_card(tmp_path, request):
    path = save_model(tmp_path)
    before = read_card(path)
    request.getfixturevalue("no_rename")
    network = make_network(seed=1)
    with pytest.raises(OutputError):
        save_weights(network, make_card(network), path)
    assert load_weights(str(path))[1] == before
    assert not list(tmp_path.glob(".*"))


def test_tensorboard_on_a_full_disk_is_one_line(tmp_path, monkeypatch):
    class Writer:
        def __init__(self, folder, purge_step):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    module = SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    write = tensorboard_writer(tmp_path)
    with pytest.raises(OutputError, match=r"No space left on device; .* --resume"):
        write(LogRecord(2, loss=0.5))


def test_lines_of_a_log_that_are_none_are_dropped(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_bytes(b'{"step": 2}\n\xff\xfe\n{"step": [2]}\n{"step": 9}\n{"step": 3')
    shorten_log(tmp_path, 3)
    assert log.read_text() == '{"step": 2}\n'
