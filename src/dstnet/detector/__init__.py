"""Cameras: from expected electrons to counted ones."""
