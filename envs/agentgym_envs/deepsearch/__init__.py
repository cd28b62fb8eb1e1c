"""Multi-hop questions over a generated encyclopaedia, or over question and corpus files."""
