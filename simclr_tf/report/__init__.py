"""What a person sees: tables, progress, logs."""
