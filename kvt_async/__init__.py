"""kvt's runner: sends prompts at every KV budget and records what came back. Imports nothing on purpose."""
