"""What the service reports of itself: Prometheus metrics and log lines."""
