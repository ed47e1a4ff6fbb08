"""Calls to Triton over gRPC. The only package of the gateway that imports grpc and tritonclient."""
