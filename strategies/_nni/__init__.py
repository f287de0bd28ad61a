"""NNI's own strategies, driven by Slimsearch's workers."""
