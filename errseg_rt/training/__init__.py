"""Training: data, augmentation, losses, the three stages, recipes."""
