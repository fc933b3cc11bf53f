"""`posture`: is this deployment ready? Questions answered from config, policy and records, with evidence."""
