"""Training of one network: the training loop, numeric precision, checkpoints, initial weights."""
