"""Keras models: encoder, projection head, linear head."""
