"""From a phase to image contrast: the contrast transfer function and its envelopes."""
