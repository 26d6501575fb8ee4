"""MRC, TIFF and EER files to `Movie` and back, a frame at a time; lists of inputs; outputs appear
complete or not at all.
"""

from dstnet.io.atomic import Staged, atomic_path, create_file, ensure_writable_folder
from dstnet.io.compressed_mrc import CompressedMrcFrames
from dstnet.io.eer import EerFrames, EerSettings
from dstnet.io.movie_file import open_movie, write_movie
from dstnet.io.mrc import MrcFrames, write_mrc
from dstnet.io.tiff import TiffFrames, write_tiff

__all__ = [
    "CompressedMrcFrames",
    "EerFrames",
    "EerSettings",
    "MrcFrames",
    "Staged",
    "TiffFrames",
    "atomic_path",
    "create_file",
    "ensure_writable_folder",
    "open_movie",
    "write_movie",
    "write_mrc",
    "write_tiff",
]
