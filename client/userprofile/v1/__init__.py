"""The generated stubs of the contract: a module for each file of `protos/userprofile/v1/`.

`user_profile_pb2` has the User, `user_profile_service_pb2` the requests and responses, `user_profile_service_pb2_grpc`
the stub and the servicer, `error_reason_pb2` the reasons of errors. The comments in the protos are their documentation.
"""
