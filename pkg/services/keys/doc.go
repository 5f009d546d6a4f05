// Package keys is the service that holds the private keys of vpnd: the one
// that access tokens are signed with, the two that sign-ins are sealed to and
// the one of the TLS certificate.
//
// It owns the key files and is the only one to read them. What is missing or
// broken is made; what is valid is never touched, so restarts change nothing
// that a client could notice. It leaves who may sign in to auth, checking
// tokens to the gateway and the WireGuard keys to lanes. A Keeper may be used
// concurrently.
package keys
