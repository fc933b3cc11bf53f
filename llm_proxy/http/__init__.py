"""The HTTP surface: paths, bodies in, replies out."""
