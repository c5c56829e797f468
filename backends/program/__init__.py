"""The step program: what a step computes, as launches of kernels over buffers, for any target; imports none."""
