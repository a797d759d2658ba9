"""Find the leaked keys that still work, replace them, and prove the old ones dead."""

__version__ = "0.1.0"
