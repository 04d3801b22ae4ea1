"""Where a frame's way is walked: a CPU, or a GPU by torch, cuda-core or pycuda."""
