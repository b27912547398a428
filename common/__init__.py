"""What at least two of the programs share; it knows no service."""
