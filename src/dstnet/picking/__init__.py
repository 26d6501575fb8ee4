"""Particle centres from an image."""

from dstnet.picking.blobs import Picks, pick_blobs

__all__ = ["Picks", "pick_blobs"]
