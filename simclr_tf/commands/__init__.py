"""What the program can do: one module per command."""
