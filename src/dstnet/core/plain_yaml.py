"""YAML read as plain values, however large its aliases make it look."""

from pathlib import Path
from typing import Any

import yaml

from dstnet.core.regular_files import read_regular_text

_MOST_BYTES = 1 << 20
# With what aliases repeat counted each time; our own settings have some 200.
_MOST_VALUES = 20_000
_MOST_DEPTH = 50
# Python refuses to print whole numbers of 4,300 digits.
_MOST_PLAIN_CHARACTERS = 3000
# Ten times as fast, where PyYAML was built with it.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path | str) -> Any:
    """The values of a YAML file.

    Raises
    ------
    OSError
        If it cannot be read, is no regular file or is too large.
    ValueError
        If it is no YAML of plain values, or too much of it: values, once its aliases are followed,
        levels, or digits.
    """
    text = read_regular_text(path, _MOST_BYTES)
    loader = _Loader(text)
    try:
        _check_signs(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node)
        return loader.construct_document(node)
    except RecursionError:
        raise ValueError(f"it has more than {_MOST_DEPTH} levels") from None
    except (ValueError, yaml.YAMLError):
        raise
    except Exception as error:  # a value that is none of its kind surfaces as nearly every kind
        raise ValueError(f"it holds a value that YAML does not know ({error})") from None
    finally:
        loader.dispose()


def _check_signs(text: str) -> None:
    """Refuse more values, levels or digits than may be, before a tree is made of them.

    Raises
    ------
    ValueError
        If there are.
    yaml.YAMLError
        If it is no YAML.
    """
    count = 0
    depth = 0
    for event in yaml.parse(text, _Loader):
        count += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if count > _MOST_VALUES:
            raise ValueError(f"it has more than {_MOST_VALUES} values")
        if depth > _MOST_DEPTH:
            raise ValueError(f"it has more than {_MOST_DEPTH} levels")
        if isinstance(event, yaml.ScalarEvent) and not event.style:
            # Here already: to tell what kind of value it is takes the square of its length.
            _check_length(event.value)


def _check_length(plain: str) -> None:
    if len(plain) > _MOST_PLAIN_CHARACTERS:
        raise ValueError(f"it has a value of {len(plain)} characters without quotes")


def _check_size(root: yaml.Node) -> None:
    """Refuse, before anything is made of it, what would grow without end.

    Raises
    ------
    ValueError
        If there are too many values or levels.
    """
    waiting = [(root, 0)]
    count = 0
    while waiting:
        node, depth = waiting.pop()
        count += 1
        if count > _MOST_VALUES:
            raise ValueError(f"it has more than {_MOST_VALUES} values, its aliases followed")
        if depth > _MOST_DEPTH:
            raise ValueError(f"it has more than {_MOST_DEPTH} levels")
        if isinstance(node, yaml.MappingNode):
            waiting += [(part, depth + 1) for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += [(part, depth + 1) for part in node.value]
