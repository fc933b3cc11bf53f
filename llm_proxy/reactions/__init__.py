"""What follows where a limit is reached or a call is refused: messages, records, and webhooks."""
