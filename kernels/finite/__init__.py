"""Finiteness: which branches of a cascade gave a value that is NaN or infinite.

`reference` is the definition, and what the CPU does; `launches` finds it on a GPU without waiting for it.
"""
