"""edgeicl: compiles a recipe into a small language model that runs on a phone.

Nothing is imported here, so that `import edgeicl` and `edgeicl --help` stay fast.
"""

__version__ = "0.1.0"
