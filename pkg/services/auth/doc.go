// Package auth is the service that signs people in. It owns devices, refresh
// families, the nonces of sign-ins and the guard against guessing.
//
// A sign-in is opened by keys, looked up in users, verified here and durable
// before it is answered. What others must act on (a device signed out, deleted
// or caught with a spent token) is committed together with a task that says
// so; a task that could not be done is retried until it is, also after a
// crash. The package leaves accounts and password hashes to users, signing to
// keys, peers to sessions. It alone writes auth.db, so whether a device may
// connect is answered from memory. An Auth may be used concurrently once Load
// has returned.
package auth
