"""Models, each a composition of parts between embedding tables and head."""
