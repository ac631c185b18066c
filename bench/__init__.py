"""The cost of sockets and the events lost by faults: the guide's design and ours, side by side."""
