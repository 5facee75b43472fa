"""What comes of data sets and runs: correlations, the paper's tables and figures, a report."""
