"""The surface: quality, milliseconds and bytes of every way to serve one student, and which of them nothing beats."""
