"""A module of a job that keeps everything it is given."""

CACHE = []


def keep(value):
    CACHE.append(value)  # keep in another module
