"""A report on a data set and its runs: one HTML file."""
