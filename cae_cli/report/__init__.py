"""Shows what was measured and judged: on the terminal and as pictures. Judges nothing itself."""
