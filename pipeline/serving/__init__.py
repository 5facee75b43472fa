"""A model in use: the features of a request, from a user's events, by the rules of a data set.

Neither PyTorch nor the trainer is loaded for it.
"""
