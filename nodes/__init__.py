"""ComfyUI nodes. Loaded by the host through the pack's root, never imported as the bare name `nodes`."""
