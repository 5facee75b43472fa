"""Run a function over buckets of users."""
