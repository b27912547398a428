"""How a core is packed, read back anywhere, and restored."""
