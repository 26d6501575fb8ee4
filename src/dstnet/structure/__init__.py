"""Structures: atoms read from PDB and mmCIF files, or made by formula."""

from dstnet.structure.atoms import MAX_ATOMS, Atoms, read_structure
from dstnet.structure.phantom import phantom

__all__ = ["MAX_ATOMS", "Atoms", "phantom", "read_structure"]
