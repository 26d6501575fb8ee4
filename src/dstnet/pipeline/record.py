"""What is put on record of a run and of each of its inputs, and how it lies in JSON."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict

Status = Literal["done", "skipped", "failed"]


class _Stored(BaseModel):
    """What lies in JSON; a name that this version does not know is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class MadeWith(_Stored):
    """What all results of a folder share.

    Attributes
    ----------
    version
        Of this package.
    weights, weights_sha256
        Name and digest of the network's weights; None without a network.
    settings
        Of the method.
    eer
        How raw EER frames were made into frames.
    correction
        How the camera's faults were taken out, and the digests of its references; None: not at all.
    half_precision_files
        Whether images are 16-bit floats.
    """

    # What a method says of itself beyond weights is kept too; results that name what this version
    # does not know were made with something else.
    model_config = ConfigDict(frozen=True, extra="allow")

    version: str
    weights: str | None = None
    weights_sha256: str | None = None
    settings: dict[str, Any]
    eer: dict[str, Any] | None = None
    correction: dict[str, Any] | None = None
    half_precision_files: bool = False

    def differences(self, other: "MadeWith") -> list[str]:
        """Names of what differs."""
        ours = self.model_dump()
        theirs = other.model_dump()
        return [name for name, value in ours.items() if value != theirs.get(name)]


class Source(_Stored):
    """What results were made from; other values make other results.

    Attributes
    ----------
    frames
        How many were taken.
    exposure_per_frame_e_per_a2
        Mean over the frames; None where it is not known.
    gain, motion_from
        Files of the gain reference and of imported motion.
    """

    frames: int
    pixel_size_angstrom: float
    exposure_per_frame_e_per_a2: float | None
    pre_exposure_e_per_a2: float
    voltage_kv: float
    gain: str | None = None
    motion_from: str | None = None

    @property
    def total_exposure_e_per_a2(self) -> float | None:
        """Of all frames together; None where it is not known."""
        own = self.exposure_per_frame_e_per_a2
        return None if own is None else own * self.frames


class Results(_Stored):
    """What was made of an input.

    Attributes
    ----------
    shifts_angstrom
        (y, x) of each frame, against the first.
    accumulated_motion_angstrom
        Length of the frames' way: in all, early and late; the latter None without an exposure.
    notes
        What the user should know, a line each.
    files
        Paths by kind of product, from the run's folder.
    optics
        The input's optics group by RELION's names.
    """

    output_pixel_size_angstrom: float
    shifts_angstrom: list[list[float]]
    accumulated_motion_angstrom: tuple[float, float | None, float | None]
    notes: list[str]
    files: dict[str, str]
    optics: dict[str, Any]

    @property
    def farthest_from_the_ends_angstrom(self) -> float:
        """How far the frames lie at most from where the first or the last one does."""
        shifts = self.shifts_angstrom
        ends = shifts[0], shifts[-1]
        return max(math.dist(shift, end) for shift in shifts for end in ends)


class Cost(_Stored):
    """What making the results took; differs from run to run."""

    seconds: float
    cpu_seconds: float
    threads: int
    device: str
    peak_memory_bytes: int


class Record(_Stored):
    """What came of one input. In JSON the fields of `source`, `results` and `cost` stand beside the
    others.

    Attributes
    ----------
    input
        Path of the movie.
    name
        What the record is kept by.
    status
        Whether it was made now, was there already, or failed.
    time
        When, in ISO form.
    error
        Why it failed.
    source, results, cost
        Of the results that lie there, which may be older than a failure; None without any.
    """

    PARTS: ClassVar[dict[str, type[_Stored]]] = {
        "source": Source,
        "results": Results,
        "cost": Cost,
    }

    input: str
    name: str
    status: Status
    time: str
    error: str | None = None
    source: Source | None = None
    results: Results | None = None
    cost: Cost | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """From what lies in JSON.

        Raises
        ------
        ValueError
            If it is no record.
        """
        parts = {}
        for part, model in cls.PARTS.items():
            fields = model.model_fields
            required = {name for name, field in fields.items() if field.is_required()}
            if required <= values.keys():
                parts[part] = {name: values[name] for name in fields if name in values}
        own = {name: value for name, value in values.items() if name not in cls.PARTS}
        return cls.model_validate({**own, **parts})

    def to_json(self) -> dict[str, Any]:
        """As it lies in JSON."""
        values: dict[str, Any] = {"input": self.input, "name": self.name}
        values["status"] = self.status
        for part in (self.source, self.results, self.cost):
            if part is not None:
                values |= part.model_dump()
        if self.error is not None:
            values["error"] = self.error
        values["time"] = self.time
        return values
