"""What the site says of the code, read from the code each time it is built."""
