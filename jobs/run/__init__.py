"""One run: models after one another, what people see of it, and its summary."""
