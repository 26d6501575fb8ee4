"""One option for each output that a network can give, made of the table of outputs."""

from dataclasses import field, make_dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from dstnet.network.outputs import OUTPUTS, Output


def _option(output: Output) -> tuple[str, Any, Any]:
    parameter = Parameter(negative=(), help=output.help)
    return output.name, Annotated[bool, parameter], field(default=False)


_OPTIONAL = [output for output in OUTPUTS.values() if output.help]

if TYPE_CHECKING:

    class OutputOptions:
        """Which of a network's outputs are written beside the enhanced micrograph."""

else:
    # cyclopts takes classes of the standard library, whose `types` this would be, for plain values.
    own = {"__module__": __name__}
    OutputOptions = Parameter(name="*")(
        make_dataclass("OutputOptions", map(_option, _OPTIONAL), frozen=True, namespace=own)
    )


def requested_outputs(options: OutputOptions | None) -> tuple[str, ...]:
    """Names of the outputs that are asked for, in the order of the table."""
    return tuple(o.name for o in _OPTIONAL if getattr(options, o.name, False))
