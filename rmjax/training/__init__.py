"""Training and fitting: the loop and what it needs."""
