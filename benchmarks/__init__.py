"""Speed and memory, measured. Nothing here is asserted in a test; see README.md for figures and how to read them."""
