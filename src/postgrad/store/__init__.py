"""The event log and the artefacts of a run: `base.py` is the contract, `sqlite.py` the store that runs use."""
