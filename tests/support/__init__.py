"""What several tests share: small inputs, tiny networks and stand-ins."""
