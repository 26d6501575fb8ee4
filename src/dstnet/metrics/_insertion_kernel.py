"""The compiled sharing of Fourier terms among voxels. Only `reconstruction.py` imports this file,
and late: numba takes half a second to load.
"""

import numpy as np

from dstnet.core.compiled import compiled


def _insert(total, weight, plane, values, squares, rotation):
    size = weight.shape[0]
    for term in range(plane.shape[0]):
        kx = plane[term, 0]
        ky = plane[term, 1]
        # Rows of R are the image's axes in the particle's frame: R^T (kx, ky, 0).
        x = kx * rotation[0, 0] + ky * rotation[1, 0]
        y = kx * rotation[0, 1] + ky * rotation[1, 1]
        z = kx * rotation[0, 2] + ky * rotation[1, 2]
        base_x = np.floor(x)
        base_y = np.floor(y)
        base_z = np.floor(z)
        value = values[term]
        square = squares[term]
        for corner in range(8):
            right = corner & 1
            down = (corner >> 1) & 1
            deep = corner >> 2
            # How near the voxel lies along each axis, from 0 to 1.
            near_x = 1.0 - abs(x - base_x - right)
            near_y = 1.0 - abs(y - base_y - down)
            near_z = 1.0 - abs(z - base_z - deep)
            share = near_x * near_y * near_z
            column = (int(base_x) + right) % size
            row = (int(base_y) + down) % size
            section = (int(base_z) + deep) % size
            total[section, row, column] += np.complex64(share * value)
            weight[section, row, column] += np.float32(share * square)


insert = compiled(
    _insert,
    "void(complex64[:,:,::1], float32[:,:,::1], float64[:,::1], complex128[::1], float64[::1],"
    " float64[:,::1])",
)
