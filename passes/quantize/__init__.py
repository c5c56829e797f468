"""Weights in few bits: how codes are chosen, and the pass that puts them in the place of numbers."""
