"""What was spent, by day and by whatever FinOps group by: daily sums, questions to them, and their proof."""
