"""Weights fine-tuned on movies without truth."""
