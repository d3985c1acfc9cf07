"""Recipe -> trained model and its outputs: `executor.py` on the controller's side, `worker.py` inside the engine."""
