"""What makes a static key unnecessary: ways to short-lived ones, one file each."""
