"""Reads shards, composes models from parts, trains and measures them."""
