"""Two runs side by side: the first bit in which they differ, what explains it, and what it cost."""
