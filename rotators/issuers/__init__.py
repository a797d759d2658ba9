"""Whoever makes and kills keys: one file each, none knows another."""
