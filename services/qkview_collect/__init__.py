"""Hand cores and their records out over gRPC."""
