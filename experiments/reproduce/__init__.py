"""The flows of a tutorial, made with Slimsearch, and with NNI itself to compare."""
