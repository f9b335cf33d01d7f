"""Choice of the patches whose labels would help most."""
