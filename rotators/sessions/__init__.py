"""What ends the sessions a leaked key opened: one file each."""
