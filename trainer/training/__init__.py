"""One training: what it is asked to do, its steps, its run folder, and the run put to use."""
