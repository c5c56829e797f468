"""Passes that merge what reads the same value."""
