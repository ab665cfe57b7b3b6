"""How well encoders transfer to other data sets."""
