"""Each engine gives what eager gives, for the micrograph and the frames, or says why it cannot
run.
"""

import sys
from importlib.util import find_spec

import pytest
import tiny
import torch

from dstnet.enhancement import EnhancementSettings, NetworkRestorer
from dstnet.errors import SettingsError
from dstnet.movie import Movie
from dstnet.network.engine import TOLERANCE, EngineName, autocast, has_half_precision, make_engine
from dstnet.runs import torch_threads

CPU = torch.device("cpu")
# Looked for without importing it: how it is imported decides whether it sends telemetry.
needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None,
    reason="openvino is not installed: pip install 'dstnet[openvino]'",
)


def inputs(
    frames: int = 3, height: int = 48, width: int = 64, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Frames, total and exposure, of noise."""
    random = torch.Generator().manual_seed(seed)
    stack = torch.randn(1, frames, height, width, generator=random)
    return stack, stack.sum(1) / frames**0.5, torch.rand(1, frames, 3, generator=random)


def network(seed: int = 0):
    """A tiny network whose every layer matters: the residual blocks of an untrained one are the
    identity.
    """
    made = tiny.make_network(seed)
    random = torch.Generator().manual_seed(seed)
    for parameter in made.parameters():
        if not parameter.any():
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=random)
    return made


def check_equals_eager(name: EngineName, half_precision: bool) -> None:
    reference = make_engine("eager", CPU, half_precision=False)
    engine = make_engine(name, CPU, half_precision=half_precision)
    first, second = network(), network(1)
    # Another size, another number of frames, other outputs, another network: nothing kept for one
    # may be used for the next.
    for made, given, every in (
        (first, inputs(), False),
        (first, inputs(seed=1), False),
        (first, inputs(), True),
        (first, inputs(2, 32, 48), True),
        (second, inputs(), False),
    ):
        before = [x.clone() for x in given]
        expected, out = reference(made, *given, every=every), engine(made, *given, every=every)
        assert out.dtype == torch.float32 and out.shape == expected.shape
        assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))
        deviation = expected.std(dim=(2, 3))
        difference = (out - expected).square().mean(dim=(2, 3)).sqrt()
        assert (
            difference < TOLERANCE["bfloat16" if half_precision else "float32"] * deviation
        ).all(), difference / deviation
    kept = engine(second, *inputs())
    again = kept.clone()
    engine(second, *inputs(seed=2))
    assert torch.equal(kept, again), "an output is the caller's"


def test_eager_in_half_precision_is_within_its_tolerance():
    check_equals_eager("eager", True)


@pytest.mark.parametrize("threads", [1, 2])
def test_winograd_equals_eager(threads):
    with torch_threads(threads):
        check_equals_eager("winograd", False)


@pytest.mark.parametrize(("half_precision", "name"), [(False, "winograd"), (True, "eager")])
def test_winograd_is_used_where_there_is_no_half_precision(half_precision, name, monkeypatch):
    monkeypatch.setattr("dstnet.network.engine.has_half_precision", lambda device: half_precision)
    for asked in (None, half_precision):
        engine = make_engine(None, CPU, half_precision=asked)
        assert type(engine) is type(make_engine(name, CPU))
    with pytest.raises(SettingsError, match="works in float32"):
        make_engine("winograd", CPU, half_precision=True)
    with pytest.raises(SettingsError, match="winograd runs on the CPU"):
        make_engine("winograd", torch.device("cuda"))


@pytest.mark.parametrize("there", [False, True])
def test_half_precision_is_used_where_it_is_there(there, monkeypatch):
    monkeypatch.setattr("dstnet.network.engine.has_half_precision", lambda device: there)
    made, given = network(), inputs()
    default, as_said = (
        make_engine("eager", CPU, half_precision=half)(made, *given) for half in (None, there)
    )
    assert torch.equal(default, as_said)
    with autocast(CPU):
        assert made.spatial.first(given[1].reshape(1, 4, 32, 24)).dtype == (
            torch.bfloat16 if there else torch.float32
        )


def test_a_processor_without_avx512_has_no_half_precision():
    if torch.backends.cpu.get_cpu_capability() == "AVX2":
        assert not has_half_precision(CPU)
    assert isinstance(has_half_precision(CPU), bool)


@pytest.mark.slow
@pytest.mark.parametrize("half_precision", [False, True])
def test_compile_equals_eager(half_precision):
    try:
        make_engine("compile", CPU, half_precision=half_precision)
    except SettingsError as error:
        pytest.skip(str(error))
    check_equals_eager("compile", half_precision)


@needs_openvino
@pytest.mark.parametrize("half_precision", [False, True])
def test_openvino_equals_eager(half_precision):
    check_equals_eager("openvino", half_precision)


@needs_openvino
def test_openvino_sends_nothing():
    make_engine("openvino", CPU, half_precision=False)
    assert sys.modules["openvino.tools.ovc.telemetry_utils"].tm.__name__.endswith("telemetry_stub")


@needs_openvino
def test_a_movie_is_enhanced_alike(model):
    movie = Movie(tiny.make_frames(), 2.0, "here.tif")
    values = {
        "model": str(model),
        "half_precision": False,
        "tile": 128,
        "overlap": 16,
    }
    eager, other = (
        tiny.restore(
            NetworkRestorer(EnhancementSettings.checked({**values, "engine": engine}, "test")),
            movie,
            "frames",
        )
        for engine in ("eager", "openvino")
    )
    torch.testing.assert_close(
        other.micrograph, eager.micrograph, rtol=1e-4, atol=1e-4 * float(eager.micrograph.std())
    )
    torch.testing.assert_close(
        other.frames, eager.frames, rtol=1e-4, atol=1e-4 * float(eager.frames.std())
    )


def test_what_an_engine_lacks_is_said_before_any_movie(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(SettingsError, match=r"pip install 'dstnet\[openvino\]'"):
        NetworkRestorer(EnhancementSettings(model=str(model), engine="openvino"))
    with pytest.raises(SettingsError, match="runs on the CPU"):
        make_engine("openvino", torch.device("cuda"), half_precision=True)


def test_compile_without_a_compiler_is_refused(model, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("InvalidCxxCompiler: no working C++ compiler found\nmore")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(
        SettingsError, match=r"no working C\+\+ compiler found; install a C\+\+ compiler"
    ):
        NetworkRestorer(EnhancementSettings(model=str(model), engine="compile"))


def test_an_engine_runs_the_network_that_the_restorer_has(model):
    restorer = NetworkRestorer(EnhancementSettings(model=str(model)))
    movie = Movie(tiny.make_frames(), 2.0, "here.tif")
    before = tiny.restore(restorer, movie).micrograph
    restorer.trained.network = network(1)
    assert not torch.equal(tiny.restore(restorer, movie).micrograph, before)
