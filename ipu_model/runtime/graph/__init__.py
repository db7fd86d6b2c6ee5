"""A captured graph: rewritten, split, kept in files."""
