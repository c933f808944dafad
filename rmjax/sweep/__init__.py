"""Many runs of one config: a grid of changes, several seeds, one table at the end."""
