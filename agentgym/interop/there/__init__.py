"""Our environments in other libraries, one file per library, each used in one line."""
