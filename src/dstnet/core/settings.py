"""The base of all settings: frozen, closed, read from and written to YAML."""

from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from dstnet.core.plain_yaml import read_yaml
from dstnet.errors import SettingsError

# Of what a message shows of a file.
_MOST_CHARACTERS = 300


class Settings(BaseModel):
    """Frozen settings that refuse unknown names. "Off" is None, never a magic number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def checked(cls, values: dict, where: str) -> Self:
        """Settings from plain values; an error names `where` they came from.

        Raises
        ------
        SettingsError
            If a name is unknown or a value not allowed.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = []
            for problem in error.errors():
                name = ".".join(str(part) for part in problem["loc"]) or "settings"
                problems.append(f"{name}: {problem['msg']} (got {_shown(problem['input'])})")
            allowed = ", ".join(cls.model_fields)
            raise SettingsError(
                f"{where}: {'; '.join(problems)}; allowed names here: {allowed}"
            ) from None

    @classmethod
    def from_yaml(cls, path: Path | str, **overrides) -> Self:
        """Settings from a YAML file; `overrides` win over the file, whatever is named in neither
        keeps its default.

        Raises
        ------
        SettingsError
            If the file cannot be read, is not a YAML mapping, or holds an unknown name or a value
            not allowed.
        """
        try:
            values = read_yaml(path)
        except (OSError, ValueError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())[:_MOST_CHARACTERS]
            raise SettingsError(
                f"cannot read settings from {path}: {reason}; give a YAML file of 'name: value'"
                " lines"
            ) from None
        if values is None and Path(path).stat().st_size > 0:  # comments alone
            values = {}
        if not isinstance(values, dict):
            raise SettingsError(
                f"{path} holds no settings ({_kind(values)}); give a YAML file of 'name:"
                " value' lines"
            )
        return cls.checked({**cls.unwrapped(values), **overrides}, str(path))

    @classmethod
    def unwrapped(cls, values: dict) -> dict:
        """The settings among what a file holds; a kind whose settings also travel inside records
        finds them there.
        """
        return values

    def to_yaml(self) -> str:
        """These settings as YAML that `from_yaml` reads back."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def _kind(value: object) -> str:
    return "it is empty" if value is None else f"a {type(value).__name__}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}..."
