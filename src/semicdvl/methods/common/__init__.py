"""Parts that several methods share: weak and strong views, loss terms, discriminators, checks of settings."""
