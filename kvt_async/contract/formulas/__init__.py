"""What runner and analyzer both compute with. Pure."""
