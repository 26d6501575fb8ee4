"""Motion of the specimen under the beam and its damage: trajectories and local fields, warping, the
exposure filter.
"""
