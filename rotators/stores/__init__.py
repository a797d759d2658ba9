"""Where new secrets are kept: one file each, none knows another."""
