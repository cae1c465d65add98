"""What a student can gain at serving, or keep from one day to the next, by the algebra of inner products alone."""
