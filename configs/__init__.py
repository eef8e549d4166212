"""Named runs: one YAML file each, read into `configs.run.RunConfig`."""
