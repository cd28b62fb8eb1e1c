"""What an environment is, how it is registered and listed, and where it runs."""
