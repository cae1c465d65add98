"""What is measured of a finished distillation and never optimised: pure functions over lists, scores and vectors."""
