"""The few kinds of error that dstnet raises on purpose.

Each message is one line that says what was wrong, where, what is allowed and what to do. The
command line prints the message and nothing else; the library raises it.
"""


class DstnetError(Exception):
    """Base of all errors that a user can cause or mend."""


class BadInputError(DstnetError):
    """A file or array cannot be used as what it was given for."""


class SettingsError(DstnetError):
    """A setting or option is missing, unknown or out of range."""


class OutputError(DstnetError):
    """A result cannot be written where it was asked for."""


class WeightsError(DstnetError):
    """Network weights are missing, damaged or of another architecture."""
