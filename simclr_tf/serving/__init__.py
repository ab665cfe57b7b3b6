"""Export of trained networks as SavedModels."""
