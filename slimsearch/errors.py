"""The root of every exception that the project raises on purpose."""


class SlimsearchError(Exception):
    """A mistake or fault that one clear line explains: what is wrong, and what would be right.

    The command line prints that line and ends with exit code 2; from Python it is an ordinary exception.
    """
