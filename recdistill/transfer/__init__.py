"""Which histories a teacher is asked about beyond those of the log, and what it says of them."""
