"""Sparse attention from the command line: automatic plans, and gates trained on a model's own attention."""
