"""Fewer bytes for the same numbers, or nearly: pure functions of tensors and NumPy arrays."""
