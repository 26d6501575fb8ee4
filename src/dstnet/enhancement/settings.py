"""Settings of enhancement."""

from pydantic import AliasChoices, Field

from dstnet.alignment.settings import AlignmentSettings
from dstnet.core.settings import Settings
from dstnet.network.engine import EngineName
from dstnet.network.weights import DEFAULT_MODEL


class EnhancementSettings(Settings):
    """How one movie is enhanced."""

    model: str = Field(
        default=DEFAULT_MODEL,
        description=(
            "name of released weights or of a method without weights (see dstnet models), or path"
            " of a .safetensors file with its card beside it"
        ),
    )
    groups: int | None = Field(
        default=None,
        ge=1,
        validation_alias=AliasChoices("groups", "fractions"),  # as settings before 0.8 call them
        description=(
            "groups that frames are summed to before the network; None: 5, since as many as it was"
            " trained with (8) take a tenth longer and leave 0.0005 less of the energy as residual"
        ),
    )
    tile: int = Field(
        default=1136,
        ge=128,
        description="side of the network's tiles in working pixels; memory grows with its square",
    )
    overlap: int = Field(default=64, ge=16, description="pixels that neighbouring tiles share")
    replace_dark: bool = Field(
        default=True,
        description=(
            "take what is far darker than particles out before the network, and put it back after"
            " (dstnet.enhancement.contamination); with a phase plate, which makes particles dark,"
            " set it to false"
        ),
    )
    fill_band: bool = Field(
        default=True,
        description=(
            "where a sum was binned or low-passed, undo the filter and fill the band in which it"
            " holds no noise (dstnet.movie.band); what cameras give is left as it is"
        ),
    )
    ctf: bool = Field(
        default=True,
        description=(
            "match the output to the zeros and maxima of the contrast transfer function, where the"
            " sum shows its rings (dstnet.enhancement.ctf_matching); with a phase plate, whose"
            " rings lie elsewhere, set it to false"
        ),
    )
    evidence: bool = Field(
        default=True,
        description=(
            "give back what a linear filter shows and the network left out"
            " (dstnet.enhancement.signal_recovery)"
        ),
    )
    fill: bool = Field(
        default=True,
        description=(
            "take the contrast's coarse detail, of which the CTF passes next to nothing, from where"
            " particles are, so that template-free pickers find hollow ones too; false: the"
            " network's estimate as it is"
        ),
    )
    sharpen: bool = Field(
        default=True,
        description=(
            "take most of the coarse detail out of the contrast, and of where particles are, so"
            " that template-free pickers part neighbours and see faint particles beside strong"
            " ones; false: both as they are, for measuring"
        ),
    )
    half_precision: bool | None = Field(
        default=None,
        description=(
            "bfloat16 inside the network, float32 for input and output; None: where the processor"
            " or GPU has it (AVX-512, AMX), since elsewhere it is slower"
        ),
    )
    engine: EngineName | None = Field(
        default=None,
        description=(
            "what runs the network: torch as it is (eager), torch with Winograd's convolutions"
            " (winograd; float32 on CPUs), torch.compile (compile; needs a C++ compiler) or"
            " OpenVINO (openvino; needs dstnet[openvino]); None: winograd on CPUs without half"
            " precision, elsewhere eager"
        ),
    )
    alignment: AlignmentSettings = AlignmentSettings()
