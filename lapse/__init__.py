"""Find the leaked keys that still work, replace them, and prove the old ones dead."""
