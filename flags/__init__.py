"""The command line: every flag, the recipes, and how they become a Config."""
