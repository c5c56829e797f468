"""Which kernel a spec of the step program stands for, one file per family of specs (``registry.py`` has the table)."""
