"""Where calls go: providers, what they cost, and the loop that tries one target after another."""
