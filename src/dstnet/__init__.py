"""dstnet: synthetic cryo-EM movies with every ground truth, and deep spatio-temporal enhancement of
real ones.
"""

__version__ = "0.7.0"
