"""Sparse attention: methods that choose key blocks, and the pass that puts them in place of dense attention."""
