"""Passes that make a program token-major, over a KV cache."""
