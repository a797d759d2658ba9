"""Is this key still live? Reads findings, asks providers, decides; this package can only read."""
