"""Data sets with a name: how their raw files are had, and their descriptions."""
