"""What is fast is measured here: one script per question, results as JSON with a stamp of the machine."""
