"""Every serious method side by side: tasks, cells that share what is frozen, results as JSON lines, tables."""
