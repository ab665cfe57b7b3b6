"""Reads what google-research/simclr wrote: names, files, inference of the architecture."""
