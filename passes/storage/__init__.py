"""How constants and the KV cache are kept: passes that change a storage format, and nothing else."""
