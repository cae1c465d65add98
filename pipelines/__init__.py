"""What runs recdistill: the command line, the whole path as one function, and what stands around it."""
