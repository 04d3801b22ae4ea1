"""The tensors of a network that the branches can work on: found, proposed, and held against what taps must be."""
