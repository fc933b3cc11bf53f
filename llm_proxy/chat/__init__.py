"""The neutral vocabulary that every stage speaks: requests, events, replies, usage."""
