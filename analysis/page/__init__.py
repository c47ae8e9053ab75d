"""One self-contained HTML page about a sweep: what it found, how sure that is, and how to do it again."""
