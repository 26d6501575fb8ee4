"""Where tensors live."""

import torch

from dstnet.errors import SettingsError

Device = torch.device | str  # "cpu", "cuda:1", ...


def resolve_device(name: Device | None = None) -> torch.device:
    """The device called `name`; without a name, cuda where there is one, else the CPU.

    Raises
    ------
    SettingsError
        If there is no such device, or it cannot be used.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise _unusable(
            name, "torch knows no device of that name; use cpu, cuda, cuda:1, ..."
        ) from None
    try:
        torch.zeros(1, device=device).tolist()  # a GPU too old for this torch shows only then
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        if device.type == "cuda":
            raise _unusable(name, _why_no_cuda(device, error)) from None
        here = f"this torch ({torch.__version__}) has no {device.type} on this machine"
        raise _unusable(name, f"{here}; use --device cpu") from None
    return device


def _unusable(name: Device, why: str) -> SettingsError:
    return SettingsError(f"device {str(name)!r} cannot be used: {why}")


def _why_no_cuda(device: torch.device, error: Exception) -> str:
    """What is missing for a GPU to be used, and what to do."""
    build = torch.__version__
    if torch.version.cuda is None and torch.version.hip is None:
        return (
            f"this torch ({build}) is built for CPUs only; install a CUDA build of torch (the"
            " selector under Get Started on PyTorch's home page gives the command), or use --device"
            " cpu"
        )
    count = torch.cuda.device_count()
    if count == 0:
        return (
            f"this torch ({build}) is built for GPUs, but finds none: {_first_line(error)}; look"
            " whether nvidia-smi lists one, and whether the job asked for one"
            " (CUDA_VISIBLE_DEVICES), or use --device cpu"
        )
    if device.index is not None and device.index >= count:
        there = "cuda:0 alone" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        return f"there is {there}; use one of these, or --device cpu"
    return f"{_first_line(error)}; use another GPU, or --device cpu"


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
