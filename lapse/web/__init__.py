"""The console: pages for the responder, a JSON API, and the hooks that findings arrive by. `lapse serve` runs it."""
