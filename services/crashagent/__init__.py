"""Take crashes in, and have each complete on disk before anyone is told."""
