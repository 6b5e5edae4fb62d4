"""What firmware teams flash: wheels, packages and images are made here. Nothing of it is installed."""
