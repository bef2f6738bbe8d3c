"""What the end-to-end tests are made of: Weir itself, scripted relays, raw clients, real programs."""
