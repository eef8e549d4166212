"""Episodes on disk, and batches of them."""
