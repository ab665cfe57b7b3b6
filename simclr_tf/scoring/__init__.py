"""Scores of a network: features are extracted once, and all evaluations read them."""
