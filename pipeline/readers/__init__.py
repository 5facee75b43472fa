"""Raw files as tables, each line of them read or refused with a reason."""
