"""Messages of a run to a webhook."""
