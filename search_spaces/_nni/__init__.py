"""The adapter to NNI's model spaces."""
