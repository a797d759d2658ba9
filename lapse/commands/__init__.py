"""What each verb does. `lapse.cli` declares them; nothing here is imported before it runs."""
