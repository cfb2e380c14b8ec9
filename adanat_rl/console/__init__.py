"""What stands between a command and the terminal: streams, options, and the habits of people."""
