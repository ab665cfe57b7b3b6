"""Bounds of numbers that leave room for every real use."""

MAX_STEPS = 10**9
MANY = 10**9
MANY_EPOCHS = 10**6
MAX_BATCH = 10**6
