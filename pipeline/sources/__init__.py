"""The only files that know the quirks of one data set."""
