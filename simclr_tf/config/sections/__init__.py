"""The settings by topic: each module declares one group, in the order of --help."""
