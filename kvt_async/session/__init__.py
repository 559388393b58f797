"""One session with a server: who serves, canary, health, interrupts, end."""
