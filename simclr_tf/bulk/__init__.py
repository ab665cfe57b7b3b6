"""Features of any number of images by Apache Beam and a SavedModel, in shards that resume."""
