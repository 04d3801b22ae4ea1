"""errseg-rt: segmentation cascades that know where they are wrong."""
