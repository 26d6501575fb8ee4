"""The few kinds of error that dstnet raises on purpose.

Each message is one line that says what was wrong, where, what is allowed and what to do. The
command line prints the message and nothing else; the library raises it.
"""


def printable(text: str) -> str:
    """A text that any terminal, page or table shows in one line and takes for no command: what
    cannot be printed is escaped, as are bytes of a file's name that are no UTF-8 (as ``\\xb5``).
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    is_byte_of_a_name = 0xDC80 <= code <= 0xDCFF
    if is_byte_of_a_name:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


class DstnetError(Exception):
    """Base of all errors that a user can cause or mend; its text is printable."""

    def __str__(self) -> str:
        return printable(super().__str__())


class BadInputError(DstnetError):
    """A file or array cannot be used as what it was given for."""


class SettingsError(DstnetError):
    """A setting or option is missing, unknown or out of range."""


class OutputError(DstnetError):
    """A result cannot be written where it was asked for."""


class WeightsError(DstnetError):
    """Network weights are missing, damaged or of another architecture."""
