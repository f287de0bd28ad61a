"""What a run can be told, and how it is read: from the command line, YAML, a file of choices."""
