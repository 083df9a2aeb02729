"""The study: which runs belong to it, what is computed from their records, and the commands `comask paper ...`."""
