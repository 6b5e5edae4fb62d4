"""What stands in the image beside the agent: slots, updates of the system, and the service that calls a system good."""
