"""Fuzzing of everything that reads what others wrote: one module a format.

Each target holds its reader to three promises, whatever the bytes: it ends in a result or in one of
the errors of `schemas.errors`; its result is what an independent reading of the same bytes says;
and nothing in the bytes is executed. `make fuzz` looks for inputs that break them, guided by the
coverage of the code; `tests/test_fuzz.py` has a small seeded version, and every input that once
broke one.
"""
