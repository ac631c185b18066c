"""First version of the interface."""
