"""The phases of a run, one after the other: search, compression, repetitions, finalists."""
