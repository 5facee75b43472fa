"""One SELECT a file; the header of each names its inputs, grain and parameters."""
