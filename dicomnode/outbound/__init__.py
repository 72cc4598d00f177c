"""What leaves the node: objects and originals to destinations, notifications, and procedure steps."""
