"""Who takes part: this project's pool, trio's primitives, and one file for each peer.

A module names its contenders in ``CONTENDERS`` and what is worth knowing about the version in ``VERSION``.
"""
