"""Measuring sparse attention on text, and searching for plans: which head reads what."""
