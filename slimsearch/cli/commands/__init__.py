"""The commands of `slimsearch`, one a file, called like it.

Each has `HELP`, one line of what it does, `parser(program)`, its options with examples at the end, and `run(options)`.
Nothing heavy is imported before `run`.
"""
