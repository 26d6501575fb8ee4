"""Units and constants, shape names, one FFT convention, named random streams, the base of all
settings.
"""
