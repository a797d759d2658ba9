"""Changes the world, one reversible step at a time."""
