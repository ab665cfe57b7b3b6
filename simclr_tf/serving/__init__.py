"""A trained encoder as a SavedModel."""
