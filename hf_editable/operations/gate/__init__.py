"""What an edit may cost, and what it costs."""
