"""Losses as pure functions: tensors in, one scalar out."""
