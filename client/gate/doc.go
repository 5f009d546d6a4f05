// Package gate is the client's side of the client API: where a server is, the
// pin by which it is known again, sealing a sign-in so that only the server's
// login key opens it, and calls through the tunnel or around it.
//
// It owns TLS trust: a server's certificate is self-signed and its pin is the
// only thing that counts. It leaves what is remembered to package profile and
// when to call what to package agent. A *Client may be used concurrently.
package gate
