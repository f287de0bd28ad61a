"""Copies of what happens in a run for other tools to show, one tool a file; the record is the study, as ever.

A class is called like its file. It is made with the run's configuration, and told what a `Display` is told.
"""
