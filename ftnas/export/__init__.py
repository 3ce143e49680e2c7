"""Nets as files for other tools: ONNX, torch.export programs, safetensors, C; each proven equal to the net."""
