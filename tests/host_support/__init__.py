"""What the tests against a real ComfyUI share; nothing here imports the host."""
