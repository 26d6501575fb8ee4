"""What runs a trained network: torch as it is, torch with Winograd's convolutions, torch.compile,
or OpenVINO.

Eager is the reference; the others give the same images but for rounding, within `TOLERANCE`, and
are faster on some machines.
"""

import copy
import sys
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dstnet.errors import SettingsError
from dstnet.network.blocks import MovieNetwork
from dstnet.network.cpu.parts import with_winograd

EngineName = Literal["eager", "winograd", "compile", "openvino"]

# The most that the rms of an engine's difference from eager in float32 may be, over the output's
# deviation. Measured with the released weights: 3e-7 (winograd 6e-6), and 3e-3 in bfloat16, whose
# rounding is 2^-9 of each number in each layer, whichever the engine.
TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2}

MISSING = (
    "the package openvino is missing; install it with: pip install 'dstnet[openvino]', or leave out"
    " engine: openvino"
)


_Inputs = tuple[Tensor, Tensor, Tensor]  # frames, total, exposure


class Engine:
    """Runs a network. What an engine makes of one is kept for the next call with the same
    network.
    """

    def __call__(
        self,
        network: MovieNetwork,
        frames: Tensor,
        total: Tensor,
        exposure: Tensor,
        *,
        every: bool = False,
    ) -> Tensor:
        """The network's outputs, float32 on the engine's device: parameters, shapes and units of
        `dstnet.network.blocks.MovieNetwork.forward`.
        """
        return self._run(network, (frames, total, exposure), every)

    def _run(self, network: MovieNetwork, inputs: _Inputs, every: bool) -> Tensor:
        raise NotImplementedError


def has_half_precision(device: torch.device) -> bool:
    """Whether a device has arithmetic for bfloat16: most GPUs; CPUs with AVX-512 or AMX, or Arm's.
    Elsewhere it is emulated: measured on a CPU with AVX2, 7 times slower than float32 (200 times in
    the memory layout that is not ours).
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 inside what runs in this context, where the device has it."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_half_precision(device))


def make_engine(
    name: EngineName | None, device: torch.device, *, half_precision: bool | None = None
) -> Engine:
    """The engine called `name`, ready for networks on `device`.

    Parameters
    ----------
    name
        Which; None: winograd on CPUs where float32 is used, elsewhere eager.
    device
        Where the networks are.
    half_precision
        Whether bfloat16 is used inside the network, by openvino where the processor has it; None:
        where the device has it, and never by winograd.

    Raises
    ------
    SettingsError
        If the engine cannot work here: no compiler, no package, a device that it cannot use.
    """
    if half_precision is None:
        half_precision = name != "winograd" and has_half_precision(device)
    if name is None:
        name = "winograd" if device.type == "cpu" and not half_precision else "eager"
    match name:
        case "eager":
            return _Eager(device, half_precision)
        case "winograd":
            return _Winograd(device, half_precision)
        case "compile":
            return _Compile(device, half_precision)
        case "openvino":
            return _OpenVINO(device, half_precision)


class _Eager(Engine):
    def __init__(self, device: torch.device, half_precision: bool) -> None:
        self._device = device
        self._half_precision = half_precision

    def _run(self, network: MovieNetwork, inputs: _Inputs, every: bool) -> Tensor:
        there = [tensor.to(self._device) for tensor in inputs]
        precision = torch.autocast(
            self._device.type, dtype=torch.bfloat16, enabled=self._half_precision
        )
        with torch.no_grad(), precision:
            return network(*there, **_asked(every)).float()


class _Remade(_Eager):
    """Runs what is made of a network once."""

    _network: MovieNetwork | None = None
    _made: MovieNetwork

    def _make(self, network: MovieNetwork) -> MovieNetwork:
        raise NotImplementedError

    def _run(self, network: MovieNetwork, inputs: _Inputs, every: bool) -> Tensor:
        if self._network is not network:
            self._made = self._make(network)
            self._network = network
        return super()._run(self._made, inputs, every)


class _Winograd(_Remade):
    def __init__(self, device: torch.device, half_precision: bool) -> None:
        if device.type != "cpu":
            raise SettingsError(
                f"engine: winograd runs on the CPU, not on {device}; use --device cpu, or another"
                " engine"
            )
        if half_precision:
            raise SettingsError(
                "engine: winograd works in float32; leave out half_precision: true, or use engine:"
                " eager"
            )
        super().__init__(device, half_precision)

    def _make(self, network: MovieNetwork) -> MovieNetwork:
        return with_winograd(network)


class _Compile(_Remade):
    """The network's parts compiled one by one: what is made does not depend on the number of frames
    that pass through them.

    Each size of tile is compiled for; beyond torch's own limit (8 of them in a process) the rest
    runs as eager does.
    """

    def __init__(self, device: torch.device, half_precision: bool) -> None:
        super().__init__(device, half_precision)
        try:
            # The compiler is called at first use: find out now.
            torch.compile(torch.neg)(torch.zeros(8, device=device))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise SettingsError(
                f"engine: compile cannot be used here: {reason}; install a C++ compiler (g++;"
                " triton for a GPU) or use engine: eager"
            ) from None

    def _make(self, network: MovieNetwork) -> MovieNetwork:
        made = copy.deepcopy(network)
        for part in made.children():
            part.compile(dynamic=False)
        return made


class _OpenVINO(Engine):
    """One model for each size of tile, number of frames and set of outputs: OpenVINO plans memory
    and layouts for fixed shapes.
    """

    def __init__(self, device: torch.device, half_precision: bool) -> None:
        if device.type != "cpu":
            raise SettingsError(
                f"engine: openvino runs on the CPU, not on {device}; use --device cpu, or another"
                " engine"
            )
        self._openvino = _silent_openvino()
        core = self._openvino.Core()
        has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self._precision = "bf16" if half_precision and has_bfloat16 else "f32"
        self._core = core
        self._network: MovieNetwork | None = None
        self._made: dict[tuple, Any] = {}

    def _run(self, network: MovieNetwork, inputs: _Inputs, every: bool) -> Tensor:
        if self._network is not network:
            self._network = network
            self._made = {}
        tensors = [tensor.contiguous() for tensor in inputs]
        key = (tuple(tensors[0].shape), every, torch.get_num_threads())
        if key not in self._made:
            self._made[key] = self._compiled(network, tuple(tensors), every)
        model = self._made[key]
        arrays = [tensor.numpy() for tensor in tensors]
        outputs = model(arrays, share_inputs=True, share_outputs=True)
        out = torch.from_numpy(outputs[0])
        return out.clone()  # the model writes its next output there

    def _compiled(self, network: MovieNetwork, inputs: tuple[Tensor, ...], every: bool) -> Any:
        with torch.no_grad():
            model = self._openvino.convert_model(
                _Call(network, every), example_input=inputs, input=[list(x.shape) for x in inputs]
            )
        options = {
            "INFERENCE_PRECISION_HINT": self._precision,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # every worker would pin its threads to the same cores
        }
        return self._core.compile_model(model, "CPU", options)


class _Call(nn.Module):
    """A network as what OpenVINO converts: tensors in, one tensor out."""

    def __init__(self, network: MovieNetwork, every: bool) -> None:
        super().__init__()
        self.network = network
        self.asked = _asked(every)

    def forward(self, frames: Tensor, total: Tensor, exposure: Tensor) -> Tensor:
        return self.network(frames, total, exposure, **self.asked)


def _asked(every: bool) -> dict[str, bool]:
    """Only what is asked for is passed on: a network need not have frames of its own."""
    return {"every": True} if every else {}


def _silent_openvino() -> ModuleType:
    """The package openvino, without the telemetry that it sends at its import and with each
    conversion unless that package is absent.
    """
    name = "openvino_telemetry"
    telemetry = sys.modules.get("openvino_telemetry")
    sys.modules[name] = None  # pyright: ignore[reportArgumentType]  # Python's way to say that it cannot be imported
    try:
        import openvino  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise SettingsError(MISSING) from None
    finally:
        if telemetry is None:
            del sys.modules[name]
        else:
            sys.modules[name] = telemetry
    return openvino
