"""Made-up raw files of any size."""
