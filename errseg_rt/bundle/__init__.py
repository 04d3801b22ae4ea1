"""A trained cascade on disk: manifest, graphs, weights, and what was built of it for one machine."""
