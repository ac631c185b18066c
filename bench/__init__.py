"""The cost of sockets and the events lost by faults: the guide's design compared with this one."""
