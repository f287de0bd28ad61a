"""A run as a whole: what a user types, what a run does and records, and what is seen of it; a folder for each."""
