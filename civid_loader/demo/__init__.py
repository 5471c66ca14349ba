"""A small made-up release of all four datasets, in upstream's exact shapes, with videos rendered on the spot.

Needs no network and no account. `release.make_release` writes it, `run.run_demo` goes the whole way with it.
"""
