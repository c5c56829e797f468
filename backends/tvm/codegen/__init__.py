"""From kernels to one shared object: lower, compile or take from the cache, link."""
