"""What becomes of a bucket of users, step by step."""
