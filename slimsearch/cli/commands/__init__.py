"""The commands of `slimsearch`, one per file.

A command has `HELP`, one line; `parser(program)`, its options and examples; and `run(options)`. Only `run` imports
torch, NNI and other large packages.
"""
