"""Generation policies in plain torch: schedules, tables, the policy network, files."""
