"""From kernels and a Relax module to one shared object: lower, compile or take from the cache, link."""
