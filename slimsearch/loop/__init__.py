"""What a run does, one phase after the other: the search, compression, what is made again, the finalists."""
