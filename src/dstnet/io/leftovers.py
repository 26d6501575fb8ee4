"""Half-written files: how they are called, and how those of killed runs are removed."""

import re
import secrets
import time
from pathlib import Path

# So old, no run can still be writing them.
LEFT_OVER_SECONDS = 600.0

_STEM_LENGTH = 40  # so that a name of the greatest length allowed can still be written


def hidden_path(path: Path) -> Path:
    """A name, not used before, for what is to replace `path` once it is complete: hidden, in the
    same folder, with the same suffix.
    """
    return path.with_name(f".{path.stem[:_STEM_LENGTH]}.{secrets.token_hex(6)}{path.suffix}")


def remove_leftovers(
    folder: Path,
    *,
    stem: str = "",
    older_than_seconds: float = LEFT_OVER_SECONDS,
    below: bool = True,
) -> None:
    """Remove the half-written files that killed runs left in a folder.

    Parameters
    ----------
    folder
        Need not be there.
    stem
        Only of files whose names begin so.
    older_than_seconds
        Younger ones may be another run's, at work on them.
    below
        Also in the folders below it.
    """
    start = re.escape(stem[:_STEM_LENGTH])
    pattern = re.compile(rf"\.{start}.*\.[0-9a-f]{{12}}\.[a-z0-9]+")
    for path in folder.rglob(".*") if below else folder.glob(".*"):
        if not pattern.fullmatch(path.name):
            continue
        try:
            if time.time() - path.stat().st_mtime >= older_than_seconds:
                path.unlink()
        except OSError:
            pass  # gone meanwhile, or not ours to remove
