"""What calls cost: rates by kind of token, length of prompt and service tier, in exact integers."""
