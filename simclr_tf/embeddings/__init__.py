"""Embeddings of a data set on disk: features of every image, in shards."""
