"""A data set as batches of tensors, and what else the trainer must know of it."""
