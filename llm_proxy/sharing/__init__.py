"""What workers and replicas on one store tell each other of the targets: breakers, and what each sends."""
