"""From a Hugging Face checkpoint to a captured graph.

Entry points: ``checkpoint.load_checkpoint`` (reads a directory, no torch) and ``capture.capture`` (traces the
model). They are not imported here: torch and transformers take seconds to import and ``inspect`` needs neither.
"""
