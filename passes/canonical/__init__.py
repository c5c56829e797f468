"""Passes that give a captured graph one spelling: norms, rotary embeddings and routers as single ops."""
