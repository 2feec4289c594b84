"""What the families whose network is a diffusers `UNet2DConditionModel` share."""

from __future__ import annotations

# Every linear and convolutional layer that LCM-LoRA and the authors' TCD LoRAs adapt: 278 in SD1.5 and SD2.1, 788 in
# SDXL. Names as in peft's `target_modules`: the end of a module's name.
LORA_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
LORA_TARGETS += ["conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv"]
