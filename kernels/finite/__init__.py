"""Faults: which of some maps on a GPU hold a value that is NaN or infinite, found without waiting for it."""
