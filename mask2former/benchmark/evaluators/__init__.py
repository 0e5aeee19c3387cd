"""What evaluators keep in memory, and what AP costs, on synthetic predictions."""
