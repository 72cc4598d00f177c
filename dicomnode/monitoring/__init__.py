"""The node as a monitoring system sees it: `/live`, `/ready`, `/metrics`, in a process of its own."""
