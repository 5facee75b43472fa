"""What a data set's form allows. Nothing is loaded for it."""

MAX_LEN = 50
"""Behaviours kept of a history, where nobody says how many."""
LAYOUTS = ("padded", "ragged")
# What the only history of a data set is called, if there is no other.
HISTORY = "history"
# What the types of a shard's columns can count: interval bins, and behaviours of a row, in sessions
# as well.
MOST_BINS, MOST_BEHAVIOURS = 255, 32_767
