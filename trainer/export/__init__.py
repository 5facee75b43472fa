"""A trained model as an ONNX graph, in a folder with all that serving needs."""
