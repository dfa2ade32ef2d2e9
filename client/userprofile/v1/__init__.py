"""The generated stubs of the contract: messages in `user_profile_pb2`, stub and servicer in `user_profile_pb2_grpc`.

The build makes them from `protos/userprofile/v1/user_profile.proto`, whose comments are their
documentation.
"""
