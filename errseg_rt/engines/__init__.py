"""Engines execute the graphs of a bundle: one short file each, behind one `Engine`."""
