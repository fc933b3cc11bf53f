"""Who is calling: from the credential alone, and what the headers may narrow."""
