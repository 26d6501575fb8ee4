"""What is put on record of a run and of each of its inputs, and how it lies in JSON."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, field_validator

from dstnet.pipeline.file_state import FileState, FileVersion
from dstnet.pipeline.naming import movie_identity


def _path_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("it is no path")


# pydantic's own strings are UTF-8, which a file's name need not be.
PathText = Annotated[str, PlainValidator(_path_text)]
# Absent rather than null, as in older records.
_SINCE_0_9 = (
    "path",
    "gain_sha256",
    "defects_sha256",
    "motion_sha256",
    "size_bytes",
    "modified_ns",
    "first_frame",
    "noise_scale",
    "written",
    "run",
)
_DIGEST_LENGTH = 16
Status = Literal["done", "skipped", "failed"]


class _Stored(BaseModel):
    """What lies in JSON; a name that this version does not know is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


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
    packed_4_bit
        Whether bytes were read as two counts each; None: where they looked so.
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
    packed_4_bit: bool | None = None
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
    gain, defects, motion_from
        Files of the gain reference, of the camera's defects and of imported motion.
    gain_sha256, defects_sha256, motion_sha256
        Digests of the files of both references, and of the motion of these frames.
    size_bytes, modified_ns
        Of the movie's file: size, and time of change since 1970.
    first_frame
        The first that was taken, by its number in the file, from 0. None, as the five before it, in
        records of before 0.9.
    """

    frames: int
    pixel_size_angstrom: float
    exposure_per_frame_e_per_a2: float | None
    pre_exposure_e_per_a2: float
    voltage_kv: float
    gain: PathText | None = None
    defects: PathText | None = None
    motion_from: PathText | None = None
    gain_sha256: str | None = None
    defects_sha256: str | None = None
    motion_sha256: str | None = None
    size_bytes: int | None = None
    modified_ns: int | None = None
    first_frame: int | None = None

    def is_of_version(self, version: FileVersion | None) -> bool:
        """Whether the movie's file had this size and time of change."""
        return (self.size_bytes, self.modified_ns) == version

    def digest(self, made_with: MadeWith) -> str:
        """Equal for what makes the same results of a file of one version."""
        own = self._compared(), self.size_bytes, self.modified_ns
        values = made_with.model_dump(), *own
        return sha256(repr(values).encode(errors="surrogateescape")).hexdigest()[:_DIGEST_LENGTH]

    def differences(self, other: "Source") -> list[str]:
        """Names of what would make other results of the same file."""
        ours = self._compared()
        theirs = other._compared()
        return [name for name, value in ours.items() if value != theirs[name]]

    def _compared(self) -> dict[str, Any]:
        return {
            "frames": (self.first_frame, self.frames),
            "pixel size": self.pixel_size_angstrom,
            "exposure": (self.exposure_per_frame_e_per_a2, self.pre_exposure_e_per_a2),
            "voltage": self.voltage_kv,
            # A copy elsewhere is the same; where the file is gone, its name is all there is.
            "gain": self.gain_sha256 or self.gain,
            "defects": self.defects_sha256 or self.defects,
            "motion": self.motion_sha256 or self.motion_from,
        }

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
        RELION's rlnAccumMotionTotal, -Early and -Late: the steps from each frame to the next,
        their lengths added up; early and late None without an exposure.
    notes
        What the user should know, a line each.
    files
        Paths by kind of product, from the run's folder.
    optics
        The input's optics group by RELION's names.
    noise_scale
        Mean of the sum and noise of a pixel of the network's grid, on a scale of which pictures are
        shown; None of methods that measure none.
    written
        By kind, size, time of change and digest of the files; without those that movies share. None
        in records of before 0.9.
    """

    output_pixel_size_angstrom: float
    shifts_angstrom: list[Annotated[list[float], Field(min_length=2, max_length=2)]]
    accumulated_motion_angstrom: tuple[float, float | None, float | None]
    notes: list[str]
    files: dict[str, str]
    optics: dict[str, str | int | float | None]
    noise_scale: tuple[float, float] | None = None
    written: dict[str, FileState] | None = None

    def states(self) -> dict[str, FileState | None]:
        """By path, how each file was when it was written; None where it is not on record."""
        written = self.written or {}
        return {file: written.get(kind) for kind, file in self.files.items()}

    @field_validator("files")
    @classmethod
    def _are_of_the_run(cls, files: dict[str, str]) -> dict[str, str]:
        if not {"aligned", "motion"} <= files.keys():
            raise ValueError("the sum or the motion is missing")
        paths = [PurePosixPath(name) for name in files.values()]
        if any(path.is_absolute() or ".." in path.parts for path in paths):
            raise ValueError("a file lies outside the run's folder")
        return files

    def motion_in_words(self) -> str:
        """The accumulated motion as people read it, the same wherever it is shown."""
        total, early, late = self.accumulated_motion_angstrom
        words = f"{total:.1f} Å"
        if early is None or late is None:
            return words
        return f"{words} (early {early:.1f}, late {late:.1f})"


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
        Path of the movie as it was given.
    name
        What the record is kept by.
    path
        Path of the movie from the root; None in records of before 0.9.
    status
        Whether it was made now, was there already, or failed.
    run
        Number of the run in its folder, from 1; 0 in records of before 0.9.
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

    input: PathText
    name: PathText
    path: PathText | None = None
    status: Status
    run: int = 0
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
        values |= {"path": self.path, "status": self.status, "run": self.run or None}
        for part in (self.source, self.results, self.cost):
            if part is not None:
                values |= part.model_dump()
        for name in _SINCE_0_9:
            if values.get(name) is None:
                values.pop(name, None)
        if self.error is not None:
            values["error"] = self.error
        values["time"] = self.time
        return values

    @property
    def order(self) -> tuple[int, str]:
        """What later records have more of: clocks differ between machines, numbers of runs do
        not.
        """
        return self.run, self.time

    @property
    def movie(self) -> Path:
        """The movie's path, from the root where it is known."""
        return Path(self.path or self.input)

    def is_of(self, path: Path, version: FileVersion | None) -> bool:
        """Whether this is the record of the movie at `path`, of the size and time of change of
        `version`: its path is on record, or leads nowhere any more and the file is the same (a
        project that was moved).
        """
        if self.path is None or movie_identity(self.path) == movie_identity(path):
            return True
        was_moved = not Path(self.path).exists()
        return was_moved and self.source is not None and self.source.is_of_version(version)
