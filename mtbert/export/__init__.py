"""A trained run as a folder that others load: a PEFT adapter, transformers' models, or this project's own."""
