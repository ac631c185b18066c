"""What sockets cost and what faults lose: the guide's design and ours, measured side by side."""
