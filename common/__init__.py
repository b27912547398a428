"""What at least two of the programs share; it knows no service."""

__version__ = "0.1.0"
