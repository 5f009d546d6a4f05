// Package rpc declares, serves and calls remote operations: typed values that
// bind an HTTP method and path to a request and a response type.
//
// It owns the transport (HTTP over Unix sockets and TLS listeners), input
// validation, the problem+json form of errors, request ids, peer credentials,
// the heartbeat answer and server-sent events. It leaves what operations mean
// to pkg/api and the services. Ops are constants in all but name; Servers and
// Conns may be used concurrently once they serve.
package rpc
