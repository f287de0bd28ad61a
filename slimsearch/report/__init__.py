"""What a user sees of a run, while it goes on and afterwards; all of it follows from the record."""
