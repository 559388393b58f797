"""Facts of a bench -> frames, and what they say of the conditions it ran under."""
