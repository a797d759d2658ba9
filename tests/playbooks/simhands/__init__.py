"""The small world's hands as modules that a playbook can name; the world's file comes from the environment."""
