"""kvt's analyzer: reads facts, writes the verdict. No asyncio, no network. Imports nothing on purpose."""
