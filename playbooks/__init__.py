"""Order, approval, memory and recovery of a rotation."""
