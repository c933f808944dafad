"""What every part needs and none owns: files, locks, processes."""
