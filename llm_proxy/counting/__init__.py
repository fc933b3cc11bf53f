"""How many tokens a prompt has, counted offline, and how far such a count is from what a vendor reports."""
