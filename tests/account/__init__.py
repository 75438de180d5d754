"""Commands for a real account. They use your ordinary profile and Region."""
