"""Which pass, and which of its sites, costs quality."""
