"""One experiment: what its config stands for, and what its run leaves."""
