"""The contracts between the parts: errors, tables, shards and the manifest."""
