"""Built engines: from a bundle's graphs to what one machine runs fastest; wants neither torch nor a `Runtime`."""
