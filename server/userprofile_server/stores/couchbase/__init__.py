"""The store for several machines: a Couchbase bucket, through the official SDK.

The SDK is large and an optional extra, so modules that import it are imported only when a store is opened.
"""
