"""Values that don't pass as they are: found by field or by what they look like, and what stands for them."""
