"""Faster forms of the network's parts for processors."""
