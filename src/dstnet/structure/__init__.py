"""Structures: atoms read from PDB and mmCIF files, fetched by their entry, or made by formula."""

from dstnet.structure.atoms import MAX_ATOMS, Atoms, read_structure
from dstnet.structure.fetch import fetch_structure
from dstnet.structure.phantom import Shape, phantom, phantom_like

__all__ = [
    "MAX_ATOMS",
    "Atoms",
    "Shape",
    "fetch_structure",
    "phantom",
    "phantom_like",
    "read_structure",
]
