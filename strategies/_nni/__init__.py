"""The adapter to NNI's strategies; they are run by Slimsearch's workers and recorded by its search."""
