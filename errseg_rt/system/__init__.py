"""What the rest asks of files, terminals and the machine."""
