"""A model behind an OpenAI-compatible server as the engine. No torch, no spaCy; httpx comes in at the first request."""
