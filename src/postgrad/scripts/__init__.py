"""Tasks of `kind: script`: the training script of any repository is edited, run and measured."""
