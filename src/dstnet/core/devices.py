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
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        if reason.startswith("Expected one of"):
            reason = "torch knows no device of that name"
        if str(name).startswith("cuda") and torch.version.cuda is None:
            raise SettingsError(
                f"device {str(name)!r} cannot be used: this torch ({torch.__version__}) is built"
                " without CUDA; install a CUDA build of torch (pytorch.org, Get started), or use"
                " --device cpu"
            ) from None
        raise SettingsError(
            f"device {str(name)!r} cannot be used: {reason}; use --device cpu"
        ) from None
    return device
