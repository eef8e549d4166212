"""Our own table-top scene and its tasks."""
