"""Models of the user: a Python file, a torch.export program, an ONNX file."""
