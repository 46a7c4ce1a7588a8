"""Fine-tuning of LoRA adapters on packs: the core runs without spaCy, on rows that any program can write."""
