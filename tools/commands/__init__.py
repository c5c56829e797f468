"""One file per sub-command of ``fretsaw``; each names its click command ``command``."""
