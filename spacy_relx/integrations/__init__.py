"""Adapters to what people build graphs with: `langchain` and `llamaindex`, each of which needs its package."""
