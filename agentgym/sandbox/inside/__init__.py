"""What runs inside the sandbox's own processes; started by file, imports the standard library."""
