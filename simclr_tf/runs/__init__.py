"""A run on disk: directory, checkpoints, weights, metrics, and how it is opened."""
