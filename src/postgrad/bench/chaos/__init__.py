"""Runs of real jobs while things break: what is drawn, how it is done to a run, and what has to hold all the same."""
