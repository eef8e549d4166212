"""Many policies on the same data and seeds, side by side."""
