"""A finished distillation looked into: heard, measured, put into words and onto a page."""
